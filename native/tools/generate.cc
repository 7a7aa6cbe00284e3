// Owns: the generate command: what a model says after a text, without the product's prompts, so that two backends can
// be compared token by token on a machine that has neither Node nor an editor.
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine.h"
#include "io/file.h"
#include "tools/commands.h"

namespace ringside::tools {
namespace {

constexpr const char* kUsage =
    "usage: ringside-tool generate --model DIR --text FILE [--backend NAME] [--tokens N] [--threads N] [--isa NAME]\n"
    "                              [--no-lookup]\n";
constexpr int64_t kTextLimitBytes = int64_t{64} << 20;

struct Request {
  LoadOptions load;
  std::string text;  // a file
  int64_t tokens = 64;
  bool prompt_lookup = true;
};

bool read_number(std::string_view text, int64_t& to) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), to);
  return code == std::errc() && end == text.data() + text.size() && to >= 1;
}

bool set_option(std::string_view name, const char* value, Request& request) {
  if (name == "--model") return !(request.load.folder = value).empty();
  if (name == "--text") return !(request.text = value).empty();
  if (name == "--backend") return !(request.load.backend = value).empty();
  if (name == "--isa") return !(request.load.isa = value).empty();
  if (name == "--tokens") return read_number(value, request.tokens);
  int64_t threads = 0;
  if (name != "--threads" || !read_number(value, threads) || threads > kMaxThreads) return false;
  request.load.threads = static_cast<int>(threads);
  return true;
}

bool parse(int argc, char** argv, Request& request) {
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--no-lookup") {
      request.prompt_lookup = false;
    } else if (i + 1 >= argc || !set_option(argument, argv[++i], request)) {
      return false;
    }
  }
  return !request.load.folder.empty() && !request.text.empty();
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The likeliest tokens, on stdout as text; how fast they came, on stderr.
Status generate(const Request& request) {
  RS_TRY(const std::shared_ptr<Model> model, Model::load(request.load));
  if (model->tokenizer() == nullptr) {
    return Error{ErrorKind::kFileMissing, request.load.folder + "/tokenizer.json", "a tokenizer for the text", ""};
  }
  RS_TRY(const std::string text, read_text(request.text, kTextLimitBytes));
  const std::vector<int32_t> prompt = model->tokenizer()->encode_with_added(text);
  RS_TRY(const std::unique_ptr<Session> session, Session::open(model));
  CancelFlag cancel;
  const auto begin = std::chrono::steady_clock::now();
  RS_CHECK(session->sync(prompt, {}, cancel, {}));
  const double read_seconds = seconds_since(begin);
  GenerateOptions options;
  options.max_tokens = request.tokens;
  options.prompt_lookup = request.prompt_lookup;
  std::vector<int32_t> ids;
  const auto first = std::chrono::steady_clock::now();
  RS_TRY(const GenerateResult result, session->generate(options, cancel, [&](int32_t id) {
    ids.push_back(id);
    return true;
  }));
  const double seconds = seconds_since(first);
  std::printf("%s\n", model->tokenizer()->decode(ids).c_str());
  std::fprintf(stderr, "%s: %zu tokens read in %.1f ms, %lld generated, %.1f tokens/s, %lld of %lld drafted accepted\n",
               model->info().device.c_str(), prompt.size(), read_seconds * 1e3, static_cast<long long>(result.tokens),
               static_cast<double>(result.tokens) / seconds, static_cast<long long>(result.accepted),
               static_cast<long long>(result.drafted));
  return Unit{};
}

}  // namespace

int run_generate(int argc, char** argv) {
  Request request;
  if (!parse(argc, argv, request)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const Status status = generate(request);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().message().c_str());
  return 1;
}

}  // namespace ringside::tools
