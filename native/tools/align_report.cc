// Owns: the align half of the bench command: loading both models, cutting the text into tokens, and the words and JSON
// of the report.
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "tools/align.h"

namespace ringside::tools {
namespace {

constexpr int64_t kTextLimitBytes = int64_t{64} << 20;

Result<std::shared_ptr<LoadedModel>> load(const BenchOptions& options, const char* backend) {
  LoadOptions load;
  load.folder = options.model;
  load.backend = backend;
  load.threads = static_cast<int>(options.threads);
  load.isa = options.isa;
  load.kv_format = static_cast<KvFormat>(options.kv_format);
  RS_TRY(std::shared_ptr<Model> model, LoadedModel::load(load));
  return std::static_pointer_cast<LoadedModel>(std::move(model));
}

// The first tokens of the text, and one more: the last one's successor.
Result<std::vector<int32_t>> read_tokens(const BenchOptions& options, const LoadedModel& model) {
  if (model.tokenizer() == nullptr) {
    return Error{ErrorKind::kFileMissing, options.model + "/tokenizer.json", "a tokenizer for the text", ""};
  }
  RS_TRY(const std::string text, read_text(options.text, kTextLimitBytes));
  std::vector<int32_t> ids = model.tokenizer()->encode(text);
  if (static_cast<int64_t>(ids.size()) > options.tokens + 1) ids.resize(static_cast<size_t>(options.tokens) + 1);
  return ids;
}

void print_json(const Alignment& report, const ModelInfo& info, const BenchOptions& options) {
  std::printf("{\"tokens\":%lld,\"layout\":%s,\"device\":%s,\"kv\":\"%s\",\"identical\":%s,\n \"paths\":[",
              static_cast<long long>(report.tokens), json::quote(info.layout).c_str(), json::quote(info.device).c_str(),
              kv_format_name(options.kv_format), report.is_identical() ? "true" : "false");
  for (size_t i = 0; i < report.paths.size(); ++i) {
    const AlignedPath& path = report.paths[i];
    std::printf("%s{\"name\":%s,\"positions\":%lld,\"mean_dp\":%.3e,\"max_dp\":%.3e,\"share_over_0_8\":%.6f,",
                i == 0 ? "" : ",\n  ", json::quote(path.name).c_str(), static_cast<long long>(path.positions),
                path.mean_dp, path.max_dp, path.share_over);
    std::printf("\"mean_kl\":%.3e,\"max_kl\":%.3e,\"top1\":%.6f,\"different_rows\":%lld}", path.mean_kl, path.max_kl,
                path.top1, static_cast<long long>(path.different_rows));
  }
  std::printf("],\n \"layers\":[");
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const AlignedLayer& layer = report.layers[i];
    std::printf("%s{\"kind\":\"%s\",\"attention\":%.3e,\"mlp\":%.3e,\"residual\":%.3e,\"router\":%.6f}",
                i == 0 ? "" : ",\n  ", layer.is_softmax ? "softmax" : "linear", layer.attention, layer.mlp,
                layer.residual, layer.router);
  }
  std::printf("]}\n");
}

void print_text(const Alignment& report, const ModelInfo& info, const BenchOptions& options) {
  std::printf("%s; %s; keys and values in %s\n%lld tokens against the float64 reference on the same weights\n\n",
              info.layout.c_str(), info.device.c_str(), kv_format_name(options.kv_format),
              static_cast<long long>(report.tokens));
  std::printf("%-16s %10s %10s %8s %10s %10s %9s %9s\n", "", "mean |dp|", "max |dp|", "> 0.8", "mean KL", "max KL",
              "top-1", "same bits");
  for (const AlignedPath& path : report.paths) {
    std::printf("%-16s %10.2e %10.2e %7.3f%% %10.2e %10.2e %8.2f%% %9s\n", path.name.c_str(), path.mean_dp, path.max_dp,
                100.0 * path.share_over, path.mean_kl, path.max_kl, 100.0 * path.top1,
                path.different_rows == 0 ? "yes" : "NO");
  }
  std::printf("\nrelative error of what each module adds, and of the residual after it\n%-5s %-8s %10s %10s %10s %9s\n",
              "layer", "", "attention", "MLP", "residual", "router");
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const AlignedLayer& layer = report.layers[i];
    std::printf("%-5zu %-8s %10.2e %10.2e %10.2e %8.2f%%\n", i, layer.is_softmax ? "softmax" : "linear",
                layer.attention, layer.mlp, layer.residual, 100.0 * layer.router);
  }
}

// False: some path differs from chunked prefill.
Result<bool> report(const BenchOptions& options) {
  RS_TRY(const std::shared_ptr<LoadedModel> fast, load(options, "cpu"));
  RS_TRY(const std::vector<int32_t> ids, read_tokens(options, *fast));
  RS_TRY(const std::shared_ptr<LoadedModel> reference, load(options, "reference"));
  RS_TRY(const Alignment alignment, align(*fast, *reference, ids));
  options.json ? print_json(alignment, fast->info(), options) : print_text(alignment, fast->info(), options);
  return alignment.is_identical();
}

}  // namespace

int run_align(const BenchOptions& options) {
  try {
    const Result<bool> is_identical = report(options);
    if (is_identical.ok()) {
      if (is_identical.value()) return 0;
      std::fprintf(stderr,
                   "the paths differ: chunked prefill, step decode and batched decode must agree in every bit\n");
      return 1;
    }
    std::fprintf(stderr, "%s\n", is_identical.error().message().c_str());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s\n", Error{ErrorKind::kOutOfMemory, options.model, "", ""}.message().c_str());
  }
  return 1;
}

}  // namespace ringside::tools
