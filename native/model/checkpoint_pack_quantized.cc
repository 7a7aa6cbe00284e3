#include "model/checkpoint_pack_quantized.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "model/checkpoint_codes.h"
#include "model/checkpoint_plain.h"

namespace ringside {
namespace {

using Tensor = CheckpointFiles::Tensor;

constexpr size_t kMaxGroups = 64;

// One of config_groups.
struct Scheme {
  int bits = 0;
  int64_t group_columns = 0;  // 0: strategy "channel"
  bool symmetric = true;
  bool ordered_by_activation = false;
};

// Which scheme a module follows: its name decides before a pattern, a pattern before its class.
class Schemes {
 public:
  Status parse(const QuantizationFields& config) {
    const json::Value groups = config.find("config_groups");
    if (!groups.is_object() || groups.size() == 0 || groups.size() > kMaxGroups) {
      return config.unsupported("config_groups", "1 to 64 groups", std::to_string(groups.size()));
    }
    const QuantizationFields parent = config.child("config_groups");
    for (auto group = groups.begin(); group != groups.end(); ++group) RS_CHECK(parse_group(parent.child(group.key())));
    // Patterns are tried in the order of their text.
    std::stable_sort(patterns_.begin(), patterns_.end(), [](const auto& a, const auto& b) { return a.text < b.text; });
    RS_TRY(ignore_, ModuleList::parse(config, "ignore"));
    return Unit{};
  }

  bool ignores(std::string_view module) const { return ignore_.contains(module); }
  // By name or pattern, and by class for a module that has one.
  const Scheme* find(std::string_view module, const char* module_class) const {
    const auto named = names_.find(module);
    if (named != names_.end()) return &schemes_[named->second];
    for (const Pattern& pattern : patterns_) {
      if (pattern.compiled.matches(module)) return &schemes_[pattern.scheme];
    }
    const auto classed = module_class == nullptr ? names_.end() : names_.find(std::string_view(module_class));
    return classed == names_.end() ? nullptr : &schemes_[classed->second];
  }

 private:
  struct Pattern {
    std::string text;
    NamePattern compiled;
    size_t scheme;
  };

  Status parse_group(const QuantizationFields& group) {
    RS_CHECK(group.require_null("input_activations"));
    RS_CHECK(group.require_null("output_activations"));
    RS_TRY([[maybe_unused]] const auto format, group.one_of("format", {"pack-quantized"}, "pack-quantized"));
    const size_t scheme = schemes_.size();
    RS_TRY(schemes_.emplace_back(), parse_weights(group.child("weights")));
    if (group.find("targets").size() == 0) return group.unsupported("targets", "a list of modules", "none");
    return visit_modules(group, "targets", [&](std::string_view text, std::optional<NamePattern> pattern) {
      if (pattern) {
        patterns_.push_back({std::string(text), std::move(*pattern), scheme});
      } else {
        names_.insert_or_assign(std::string(text), scheme);
      }
    });
  }

  static Result<Scheme> parse_weights(const QuantizationFields& weights) {
    Scheme scheme;
    RS_TRY(const int64_t bits, weights.one_of("num_bits", {4, 8}, std::nullopt));
    scheme.bits = static_cast<int>(bits);
    RS_TRY([[maybe_unused]] const auto type, weights.one_of("type", {"int"}, std::nullopt));
    RS_TRY(scheme.symmetric, weights.boolean("symmetric", std::nullopt));
    RS_TRY(const bool dynamic, weights.boolean("dynamic", false));
    if (dynamic) return weights.unsupported("dynamic", "false", "true");
    RS_TRY(const std::string_view strategy, weights.one_of("strategy", {"group", "channel"}, std::nullopt));
    if (strategy == "channel") {
      RS_TRY([[maybe_unused]] const auto size, weights.one_of("group_size", {-1}, -1));
      RS_CHECK(weights.require_null("actorder"));
      return scheme;
    }
    RS_TRY(scheme.group_columns, weights.one_of("group_size", {32, 64, 128}, std::nullopt));
    if (weights.find("actorder").as_bool() == false) return scheme;
    // "weight" and its alias "static" reorder nothing in the file.
    RS_TRY(const std::string_view order,
           weights.one_of("actorder", {"weight", "static", "group", "dynamic"}, "weight"));
    scheme.ordered_by_activation = order == "group" || order == "dynamic";
    return scheme;
  }

  std::vector<Scheme> schemes_;
  std::map<std::string, size_t, std::less<>> names_;  // of modules and classes
  std::vector<Pattern> patterns_;
  ModuleList ignore_;
};

struct Parts {
  const Tensor* codes;
  const Tensor* scales;
  const Tensor* shape;
  const Tensor* zeros;     // nullptr: symmetric
  const Tensor* group_of;  // nullptr: groups in the order of the columns
};

class PackQuantizedLayout final : public CheckpointLayout {
 public:
  PackQuantizedLayout(Schemes schemes, const CheckpointFiles& files) : schemes_(std::move(schemes)), files_(files) {}

  Status check(const ExpectedTensor& expected, KnownTensors& known) override {
    const std::string base = expected.base();
    // The published router is no Linear module, and an embedding is one of its own class.
    const bool is_router = expected.role == TensorRole::kRouter;
    const Scheme* scheme = schemes_.find(base, is_router                                 ? nullptr
                                               : expected.role == TensorRole::kEmbedding ? "Embedding"
                                                                                         : "Linear");
    if (scheme != nullptr && schemes_.ignores(base)) scheme = nullptr;
    if (const Tensor* plain = files_.find(expected.name)) {
      RS_CHECK(check_plain(expected, *plain, {expected.rows, expected.cols}, summary_, known));
      if (scheme == nullptr || is_router) return Unit{};
      return Error{ErrorKind::kTensorMissing, base + ".weight_packed",
                   "it, because quantization_config targets the module and does not ignore it", expected.name};
    }
    // Whatever is wrong with it, a folder should first hear about the tensor it lacks.
    RS_CHECK(find_tensor(files_, base + ".weight_packed"));
    if (scheme == nullptr) {
      return Error{ErrorKind::kQuantizationUnsupported, base,
                   "a plain weight, because quantization_config does not target it or ignores it", "weight_packed"};
    }
    RS_TRY(const Parts parts, find(base, *scheme));
    RS_CHECK(check_shapes(parts, *scheme, expected.rows, expected.cols));
    RS_CHECK(check_stored_shape(*parts.shape, expected.rows, expected.cols));
    for (const Tensor* part : {parts.codes, parts.scales, parts.shape, parts.zeros, parts.group_of}) {
      if (part != nullptr) known.insert(part->info->name);
    }
    summary_.add_coded(expected, scheme->bits, scheme->group_columns);
    scheme_of_.emplace(base, scheme);
    return Unit{};
  }

  Status read(const RowSlice& slice, Matrix& out) const override {
    const auto found = scheme_of_.find(slice.base);
    if (found == scheme_of_.end()) {
      RS_TRY(const Tensor* tensor, find_tensor(files_, slice.base + ".weight"));
      RS_CHECK(check_shape(*tensor->info, {slice.rows, slice.cols}));
      return read_plain(*tensor, 0, slice, out);
    }
    const Scheme& scheme = *found->second;
    RS_TRY(const Parts parts, find(slice.base, scheme));
    RS_CHECK(check_shapes(parts, scheme, slice.rows, slice.cols));
    shape_coded(out, scheme.bits, slice, group_columns(scheme, slice.cols));
    const int64_t row_bytes = slice.cols * scheme.bits / 8;
    RS_CHECK(parts.codes->file->read(*parts.codes->info, slice.first_row * row_bytes, out.data.data(),
                                     slice.row_count * row_bytes));
    sign_codes(out);
    const int64_t groups = out.group_count();
    RS_CHECK(read_floats(*parts.scales, slice.first_row * groups, slice.row_count * groups, out.scales));
    RS_CHECK(check_finite(*parts.scales->info, out.scales));
    if (parts.zeros != nullptr) RS_CHECK(read_offsets(*parts.zeros, scheme.bits, slice, out));
    return parts.group_of == nullptr ? Status(Unit{}) : reorder(*parts.group_of, out);
  }

  std::string name() const override { return summary_.coded_name("compressed-tensors"); }

 private:
  static int64_t group_columns(const Scheme& scheme, int64_t cols) {
    return scheme.group_columns == 0 ? cols : scheme.group_columns;
  }

  Result<Parts> find(const std::string& base, const Scheme& scheme) const {
    Parts parts{};
    RS_TRY(parts.codes, find_tensor(files_, base + ".weight_packed"));
    RS_TRY(parts.scales, find_tensor(files_, base + ".weight_scale"));
    RS_TRY(parts.shape, find_tensor(files_, base + ".weight_shape"));
    if (!scheme.symmetric) {
      RS_TRY(parts.zeros, find_tensor(files_, base + ".weight_zero_point"));
    }
    if (scheme.ordered_by_activation) {
      RS_TRY(parts.group_of, find_tensor(files_, base + ".weight_g_idx"));
    }
    return parts;
  }

  static Status check_shapes(const Parts& parts, const Scheme& scheme, int64_t rows, int64_t cols) {
    const int64_t per_word = codes_per_word(scheme.bits);
    const int64_t group = group_columns(scheme, cols);
    RS_CHECK(check_dtype(*parts.codes->info, Dtype::kI32));
    RS_CHECK(check_float(*parts.scales->info));
    RS_CHECK(check_dtype(*parts.shape->info, Dtype::kI64));
    RS_CHECK(check_shape(*parts.shape->info, {2}));
    if (cols % per_word != 0 || cols % group != 0) {
      return Error{
          ErrorKind::kQuantizationUnsupported, parts.codes->info->name,
          "columns in whole groups of " + std::to_string(group) + " and whole words of " + std::to_string(per_word),
          std::to_string(cols) + " columns"};
    }
    RS_CHECK(check_shape(*parts.codes->info, {rows, cols / per_word}));
    RS_CHECK(check_shape(*parts.scales->info, {rows, cols / group}));
    if (parts.zeros != nullptr) {
      RS_CHECK(check_dtype(*parts.zeros->info, Dtype::kI32));
      RS_CHECK(check_shape(*parts.zeros->info, {(rows + per_word - 1) / per_word, cols / group}));
    }
    if (parts.group_of == nullptr) return Unit{};
    RS_CHECK(check_dtype(*parts.group_of->info, Dtype::kI32));
    return check_shape(*parts.group_of->info, {cols});
  }

  static Status check_stored_shape(const Tensor& tensor, int64_t rows, int64_t cols) {
    std::array<int64_t, 2> shape;
    RS_CHECK(tensor.file->read(*tensor.info, 0, shape.data(), sizeof shape));
    if (shape[0] == rows && shape[1] == cols) return Unit{};
    return Error{ErrorKind::kTensorShape, tensor.info->name, Shape{rows, cols}.text(),
                 Shape{shape[0], shape[1]}.text()};
  }

  static Status read_offsets(const Tensor& zeros, int bits, const RowSlice& slice, Matrix& out) {
    const int64_t per_word = codes_per_word(bits);
    const int64_t groups = out.group_count();
    std::vector<uint32_t> words;
    RS_CHECK(read_words(zeros, {.lines = zeros.info->shape[0], .width = groups, .first = 0, .count = groups}, words));
    out.offsets.resize(out.scales.size());
    for (int64_t row = 0; row < slice.row_count; ++row) {
      const int64_t stored_row = slice.first_row + row;
      for (int64_t g = 0; g < groups; ++g) {
        const uint32_t word = words[static_cast<size_t>(stored_row / per_word * groups + g)];
        const int zero = static_cast<int>(word >> (stored_row % per_word * bits)) & ((1 << bits) - 1);
        const size_t at = static_cast<size_t>(row * groups + g);
        out.offsets[at] = offset_of_zero(zero, bits, out.scales[at]);
      }
    }
    return Unit{};
  }

  static Status reorder(const Tensor& tensor, Matrix& out) {
    std::vector<int32_t> raw(static_cast<size_t>(out.cols));
    RS_CHECK(tensor.file->read(*tensor.info, 0, raw.data(), tensor.info->length_bytes));
    // A module whose order was never set holds -1 throughout.
    if (std::find(raw.begin(), raw.end(), -1) != raw.end()) return Unit{};
    RS_TRY(const std::vector<int32_t> group_of, read_group_of(tensor, out.group_count()));
    if (!is_in_order(group_of, out.group_columns)) requantise(group_of, out);
    return Unit{};
  }

  Schemes schemes_;
  const CheckpointFiles& files_;
  LayoutSummary summary_;
  std::map<std::string, const Scheme*, std::less<>> scheme_of_;  // of every packed module
};

}  // namespace

Result<std::unique_ptr<CheckpointLayout>> open_pack_quantized(const QuantizationFields& config,
                                                              const CheckpointFiles& files) {
  // In a file of mixed formats every group names its own.
  RS_TRY([[maybe_unused]] const auto format,
         config.one_of("format", {"pack-quantized", "mixed-precision"}, std::nullopt));
  RS_CHECK(config.require_null("kv_cache_scheme"));
  RS_CHECK(config.require_empty("sparsity_config"));
  RS_CHECK(config.require_empty("transform_config"));
  Schemes schemes;
  RS_CHECK(schemes.parse(config));
  return std::unique_ptr<CheckpointLayout>(new PackQuantizedLayout(std::move(schemes), files));
}

}  // namespace ringside
