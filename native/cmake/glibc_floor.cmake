# Owns: how the Linux x64 addon and the GPU backend's library are linked so that they run on glibc 2.28 with any libstdc++, whatever this machine has.
# scripts/native-link.mjs makes libraries that offer only what the floor has; scripts/symbols.mjs checks the result.

set(rs_floor_default OFF)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libc.so.6 OUTPUT_VARIABLE rs_libc
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(IS_ABSOLUTE "${rs_libc}")
    set(rs_floor_default ON)
  endif()
endif()
option(RINGSIDE_GLIBC_FLOOR "Link what ships so that it runs on glibc 2.28" ${rs_floor_default})

function(rs_link_for_glibc_floor target)
  if(NOT RINGSIDE_GLIBC_FLOOR)
    return()
  endif()
  find_program(NODE_EXECUTABLE NAMES node nodejs REQUIRED)
  set(scripts ${CMAKE_CURRENT_SOURCE_DIR}/../scripts)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/glibc-floor)
  if(NOT TARGET rs_glibc_floor)
    add_custom_command(OUTPUT ${folder}/libc.so
                       COMMAND ${NODE_EXECUTABLE} ${scripts}/native-link.mjs ${CMAKE_CXX_COMPILER} ${folder}
                       DEPENDS ${scripts}/native-link.mjs ${scripts}/elf.mjs ${rs_libc}
                       COMMENT "Making the libraries of the glibc floor" VERBATIM)
    add_custom_target(rs_glibc_floor DEPENDS ${folder}/libc.so)
  endif()
  add_dependencies(${target} rs_glibc_floor)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${folder}/libc.so)
  target_compile_definitions(${target} PRIVATE RINGSIDE_GLIBC_FLOOR)
  target_link_options(${target} PRIVATE -L${folder} -static-libstdc++ -Wl,--gc-sections)
endfunction()
