// Owns: the limits of the alignment report on the shipped 8-bit nano: how far the fast paths may be from the reference
// on the same weights, and that they are equal to one another in every bit.
#include "tools/align.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "golden_cases.h"

namespace {

using namespace ringside;

constexpr double kMeanKlLimit = 1e-3;
constexpr double kTop1Limit = 0.99;
constexpr size_t kTokens = 200;  // the reference reads about twenty a second

std::shared_ptr<LoadedModel> load(const std::string& folder, const std::string& backend,
                                  SlopeForm slope_form = SlopeForm::kA) {
  LoadOptions options;
  options.folder = folder;
  options.backend = backend;
  options.slope_form = slope_form;
  auto model = LoadedModel::load(options);
  if (model.ok()) return std::static_pointer_cast<LoadedModel>(std::move(model).value());
  check::fail(__FILE__, __LINE__, model.error().message());
  return nullptr;
}

// Tokens of real text: the golden cases one after the other.
std::vector<int32_t> text_tokens(size_t count) {
  std::vector<int32_t> ids;
  for (const golden::Case& one : golden::read_cases("nano")) ids.insert(ids.end(), one.ids.begin(), one.ids.end());
  CHECK(ids.size() >= count);
  if (ids.size() > count) ids.resize(count);
  return ids;
}

void print(const tools::Alignment& alignment) {
  for (const tools::AlignedPath& path : alignment.paths) {
    std::printf("     %-16s mean |dp| %.1e, max %.1e, mean KL %.1e, top-1 %.2f %%\n", path.name.c_str(), path.mean_dp,
                path.max_dp, path.mean_kl, 100.0 * path.top1);
  }
}

TEST("alignment: prefill, steps and batches of nano are equal in every bit and close to the reference") {
  const auto fast = load(RS_NANO_DIR, "cpu");
  const auto reference = load(RS_NANO_DIR, "reference");
  if (fast == nullptr || reference == nullptr) return;
  const auto alignment = tools::align(*fast, *reference, text_tokens(kTokens + 1));
  CHECK(alignment.ok());
  if (!alignment.ok()) return;
  print(alignment.value());
  CHECK(alignment.value().is_identical());
  CHECK_EQ(alignment.value().tokens, static_cast<int64_t>(kTokens));
  CHECK_EQ(alignment.value().paths.size(), size_t{3});
  for (const tools::AlignedPath& path : alignment.value().paths) {
    CHECK(path.positions >= static_cast<int64_t>(kTokens));
    CHECK(path.mean_kl <= kMeanKlLimit);
    CHECK(path.top1 >= kTop1Limit);
    CHECK_EQ(path.share_over, 0.0);
  }
  CHECK_EQ(alignment.value().layers.size(), static_cast<size_t>(fast->config().layers));
  for (const tools::AlignedLayer& layer : alignment.value().layers) {
    CHECK(layer.attention > 0.0 && layer.attention < 0.1);
    CHECK(layer.mlp > 0.0 && layer.mlp < 0.1);
    CHECK(layer.residual > 0.0 && layer.residual < 0.1);
    CHECK(layer.router > 0.97);
  }
}

TEST("alignment: a model that decays otherwise is seen, in every measure and in the layer where it begins") {
  const std::string folder = std::string(RS_GOLDEN_DIR) + "/tiny-tail";
  const auto fast = load(folder, "cpu", SlopeForm::kA);
  const auto reference = load(folder, "reference", SlopeForm::kB);
  if (fast == nullptr || reference == nullptr) return;
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 100; ++i) ids.push_back(i * 37 % 512);
  const auto alignment = tools::align(*fast, *reference, ids);
  CHECK(alignment.ok());
  if (!alignment.ok()) return;
  CHECK(alignment.value().is_identical());
  for (const tools::AlignedPath& path : alignment.value().paths) {
    CHECK(path.mean_kl > kMeanKlLimit);
    CHECK(path.max_kl >= path.mean_kl);
    CHECK(path.mean_dp > 0.0 && path.max_dp >= path.mean_dp);
  }
  for (const tools::AlignedLayer& layer : alignment.value().layers) {
    CHECK(layer.attention > 1e-3 && layer.mlp > 1e-3 && layer.residual > 1e-4);
  }
}

TEST("alignment: two different shapes, too few tokens and foreign ones are refused") {
  const auto fast = load(std::string(RS_GOLDEN_DIR) + "/tiny-tail", "cpu");
  const auto reference = load(std::string(RS_GOLDEN_DIR) + "/tiny-tail", "reference");
  if (fast == nullptr || reference == nullptr) return;
  const auto other = load(std::string(RS_GOLDEN_DIR) + "/tiny-silu", "reference");
  if (other == nullptr) return;
  const auto shapes = tools::align(*fast, *other, {1, 2});
  CHECK(!shapes.ok() && shapes.error().kind == ErrorKind::kArgumentInvalid);
  const auto few = tools::align(*fast, *reference, {1});
  CHECK(!few.ok() && few.error().kind == ErrorKind::kArgumentInvalid);
  const auto foreign = tools::align(*fast, *reference, {1, fast->info().vocab});
  CHECK(!foreign.ok() && foreign.error().kind == ErrorKind::kTokenOutOfRange);
}

}  // namespace
