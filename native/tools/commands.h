// The commands of ringside-tool. Each takes what stands behind its name, prints one JSON value on stdout with --json,
// progress and errors on stderr, and returns the exit code: 0 done, 1 the job failed, 2 wrong usage.
#pragma once

namespace ringside::tools {

// argv[0] is the first argument behind the command's name.
int run_quantize(int argc, char** argv);
int run_bench(int argc, char** argv);
int run_roofline(int argc, char** argv);
int run_kernels(int argc, char** argv);
int run_load(int argc, char** argv);
int run_random_checkpoint(int argc, char** argv);
int run_generate(int argc, char** argv);

}  // namespace ringside::tools
