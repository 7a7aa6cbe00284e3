// Owns: the stored inputs of the fuzzers, run through the same functions without a fuzzer. A file in `rejected` names
// the kind of error it must give after its last dot; files in `accepted` must pass; `seeds` and inputs that once broke
// something must merely be survived.
#include <filesystem>
#include <string>
#include <string_view>

#include "check.h"
#include "temp_folder.h"
#include "tools/fuzz_targets.h"

namespace {

using namespace ringside;

using Target = Status (*)(std::string_view);

void run_corpus(const std::string& name, Target target) {
  const std::filesystem::path folder = std::filesystem::path(RS_FUZZ_DIR) / name;
  size_t inputs = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    ++inputs;
    const Status verdict = target(file_content(entry.path().string()));
    const std::string group = entry.path().parent_path().filename().string();
    const std::string file = entry.path().filename().string();
    if (group == "rejected") {
      const std::string kind = verdict.ok() ? "accepted" : error_kind_name(verdict.error().kind);
      if (kind != file.substr(file.rfind('.') + 1)) check::fail(__FILE__, __LINE__, name + "/" + file + ": " + kind);
      if (!verdict.ok()) CHECK(!verdict.error().subject.empty());
    } else if (group == "accepted" && !verdict.ok()) {
      check::fail(__FILE__, __LINE__, name + "/" + file + ": " + verdict.error().message());
    }
  }
  CHECK(inputs >= 5);
}

TEST("corpus: safetensors files") { run_corpus("safetensors", tools::fuzz_safetensors); }
TEST("corpus: configurations") { run_corpus("config", tools::fuzz_config); }
TEST("corpus: tokenizer files") { run_corpus("tokenizer", tools::fuzz_tokenizer); }
TEST("corpus: texts to encode") { run_corpus("encode", tools::fuzz_encode); }
TEST("corpus: checkpoint folders") { run_corpus("checkpoint", tools::fuzz_checkpoint); }

}  // namespace
