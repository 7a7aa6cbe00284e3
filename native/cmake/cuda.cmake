# Owns: the CUDA backend, libringside_cuda.so, which carries the runtime in itself and needs only a driver; and its tests, programs
# that run on a machine with a GPU and nothing else.

if(RINGSIDE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${RINGSIDE_CUDA_ARCHITECTURES})
else()
  # Machine code for each, and the newest as PTX too, for cards that are not listed.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 120)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  # CMake before 3.26 does not know that nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13)
  message(FATAL_ERROR "The CUDA backend needs nvcc 13, found ${CMAKE_CUDA_COMPILER_VERSION}")
endif()

# -Wpedantic stays out: what nvcc makes of a source for the host's compiler breaks rules that the source keeps.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror,-Wno-unused-parameter,-ffp-contract=off,-fvisibility=hidden>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC bug 105329, as for the host's sources.
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-restrict>")
endif()

file(GLOB rs_cuda_files CONFIGURE_DEPENDS cuda/*.cu cuda/kernels/*.cu)
add_library(rs_cuda STATIC ${rs_cuda_files} error.cc io/system_pages.cc)
target_include_directories(rs_cuda PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(rs_cuda PUBLIC Threads::Threads)

# Two functions are seen from outside, so that this library and the addon never mix their symbols.
set(rs_cuda_map ${CMAKE_CURRENT_SOURCE_DIR}/cuda/backend.map)
add_library(ringside_cuda SHARED cuda/backend.cu cuda/rates.cu binding/glibc_floor.cc)
target_link_libraries(ringside_cuda PRIVATE rs_cuda)
target_link_options(ringside_cuda PRIVATE -Wl,--version-script,${rs_cuda_map} -static-libstdc++)
rs_link_for_glibc_floor(ringside_cuda)
set_property(TARGET ringside_cuda APPEND PROPERTY LINK_DEPENDS ${rs_cuda_map})

if(RINGSIDE_TESTS)
  function(rs_cuda_test name)
    add_executable(cuda_${name} ../test/cuda/${name}.cu ../test/native/check.cc)
    target_include_directories(cuda_${name} PRIVATE ../test/native ../test/cuda)
    target_link_libraries(cuda_${name} PRIVATE rs_cuda ${ARGN})
    target_link_options(cuda_${name} PRIVATE -static-libstdc++ -static-libgcc)
  endfunction()
  foreach(name pack_test load_test read_products_test read_mixture_test read_rows_test read_attention_test step_test)
    rs_cuda_test(${name})
  endforeach()
  rs_cuda_test(backend_test rs_reference)
  rs_cuda_test(session_test rs_text)
  rs_cuda_test(session_failure_test)
  rs_cuda_test(small_card_test rs_reference)
  rs_cuda_test(nano_test rs_checkpoint)
  rs_cuda_test(align_test rs_checkpoint rs_reference)
  target_sources(cuda_align_test PRIVATE tools/aligned_path.cc)
  # The engine over the library, which it finds beside itself as the product does.
  add_executable(cuda_engine_test ../test/cuda/engine_test.cc ../test/native/check.cc)
  target_include_directories(cuda_engine_test PRIVATE ../test/native)
  target_link_libraries(cuda_engine_test PRIVATE rs_engine)
  target_link_options(cuda_engine_test PRIVATE -static-libstdc++ -static-libgcc)
  # The bench goes with the tests to machines that have another libstdc++.
  target_link_options(ringside-tool PRIVATE -static-libstdc++ -static-libgcc)
endif()
