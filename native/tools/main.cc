// Owns: choosing the command of ringside-tool, for the jobs that need no session.
#include <cstdio>
#include <cstring>

#include "tools/commands.h"

namespace {

struct Command {
  const char* name;
  int (*run)(int argc, char** argv);
};

constexpr Command kCommands[] = {
    {"quantize", ringside::tools::run_quantize}, {"bench", ringside::tools::run_bench},
    {"roofline", ringside::tools::run_roofline}, {"kernels", ringside::tools::run_kernels},
    {"load", ringside::tools::run_load},         {"random-checkpoint", ringside::tools::run_random_checkpoint},
    {"generate", ringside::tools::run_generate},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 2) {
    for (const Command& command : kCommands) {
      if (std::strcmp(argv[1], command.name) == 0) return command.run(argc - 2, argv + 2);
    }
  }
  std::fprintf(stderr, "usage: ringside-tool quantize|bench|roofline|kernels|load|random-checkpoint|generate ...\n");
  return 2;
}
