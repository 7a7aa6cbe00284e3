#include "model/checkpoint_gptq.h"

#include <algorithm>
#include <utility>

#include "model/checkpoint_codes.h"
#include "model/checkpoint_plain.h"

namespace ringside {
namespace {

using Tensor = CheckpointFiles::Tensor;

constexpr size_t kMaxExceptions = 64;

struct Scheme {
  int bits = 0;
  int64_t group_columns = 0;  // 0: one group a row (group_size -1)
};

// A member of "dynamic": what holds for modules whose names match instead of the file's own scheme.
struct Exception {
  NamePattern pattern;
  bool is_plain;  // marked "-:"
  Scheme scheme;
};

struct GptqConfig {
  Scheme scheme;
  std::vector<Exception> exceptions;  // the first that matches counts
  bool stores_zeros_minus_one = true;
  bool orders_by_activation = false;

  static Result<GptqConfig> parse(const QuantizationFields& config) {
    GptqConfig out;
    RS_TRY(out.scheme, parse_scheme(config, std::nullopt, std::nullopt));
    // The newer writer says "format" too; both fields are allowed to be absent.
    const char* field = config.find("checkpoint_format").is_null() ? "format" : "checkpoint_format";
    RS_TRY(const std::string_view format, config.one_of(field, {"gptq", "gptq_v2"}, "gptq"));
    out.stores_zeros_minus_one = format == "gptq";
    RS_TRY([[maybe_unused]] const auto pack, config.one_of("pack_dtype", {"int32"}, "int32"));
    RS_TRY(out.orders_by_activation, config.boolean("desc_act", false));
    RS_CHECK(config.require_null("rotation"));
    RS_CHECK(config.require_null("adapter"));
    RS_TRY(const bool is_marlin, config.boolean("is_marlin_format", false));
    if (is_marlin) return config.unsupported("is_marlin_format", "false", "true");
    const json::Value exceptions = config.find("dynamic");
    if (exceptions.is_null()) return out;
    if (!exceptions.is_object() || exceptions.size() > kMaxExceptions) {
      return config.unsupported("dynamic", "an object of at most 64 patterns", json::kind_name(exceptions.kind()));
    }
    const QuantizationFields parent = config.child("dynamic");
    for (auto member = exceptions.begin(); member != exceptions.end(); ++member) {
      std::string_view text = member.key();
      const bool is_plain = text.starts_with("-:");
      if (is_plain || text.starts_with("+:")) text.remove_prefix(2);
      std::optional<NamePattern> pattern = NamePattern::compile(text);
      if (!pattern) return parent.unsupported(member.key(), "a plain pattern", "another");
      Scheme scheme = out.scheme;
      if (!is_plain) {
        RS_TRY(scheme, parse_scheme(parent.child(member.key()), out.scheme.bits, group_size(out.scheme)));
      }
      out.exceptions.push_back({std::move(*pattern), is_plain, scheme});
    }
    return out;
  }

  // nullptr: stored as numbers.
  const Scheme* find(std::string_view module) const {
    for (const Exception& exception : exceptions) {
      if (exception.pattern.matches(module)) return exception.is_plain ? nullptr : &exception.scheme;
    }
    return &scheme;
  }

 private:
  static int64_t group_size(const Scheme& scheme) { return scheme.group_columns == 0 ? -1 : scheme.group_columns; }

  static Result<Scheme> parse_scheme(const QuantizationFields& fields, std::optional<int64_t> bits,
                                     std::optional<int64_t> group) {
    Scheme scheme;
    RS_TRY(const int64_t found_bits, fields.one_of("bits", {4, 8}, bits));
    RS_TRY(const int64_t found_group, fields.one_of("group_size", {-1, 32, 64, 128}, group));
    scheme.bits = static_cast<int>(found_bits);
    scheme.group_columns = std::max<int64_t>(0, found_group);
    return scheme;
  }
};

struct Parts {
  const Tensor* codes;
  const Tensor* zeros;
  const Tensor* scales;
  const Tensor* group_of;  // nullptr: groups in the order of the columns
};

// The numbers of one matrix and scheme.
struct Sizes {
  int64_t per_word, group, groups, zero_words;
  Sizes(const Scheme& scheme, int64_t rows, int64_t cols)
      : per_word(codes_per_word(scheme.bits)),
        group(scheme.group_columns == 0 ? cols : scheme.group_columns),
        groups((cols + group - 1) / group),
        zero_words((rows + per_word - 1) / per_word) {}
};

// Which modules are quantised is told by the tensors: the list of modules is in the quantiser's code, not in its files.
class GptqLayout final : public CheckpointLayout {
 public:
  GptqLayout(GptqConfig config, const CheckpointFiles& files) : config_(std::move(config)), files_(files) {}

  Status check(const ExpectedTensor& expected, KnownTensors& known) override {
    const std::string base = expected.base();
    if (const Tensor* plain = files_.find(expected.name)) {
      return check_plain(expected, *plain, {expected.rows, expected.cols}, summary_, known);
    }
    RS_CHECK(find_tensor(files_, base + ".qweight"));
    const Scheme* scheme = config_.find(base);
    if (scheme == nullptr) {
      return Error{ErrorKind::kQuantizationUnsupported, base, "a plain weight, because \"dynamic\" excludes the module",
                   "qweight"};
    }
    RS_TRY(const Parts parts, find(base));
    RS_CHECK(check_shapes(parts, *scheme, expected.rows, expected.cols));
    for (const Tensor* part : {parts.codes, parts.zeros, parts.scales, parts.group_of}) {
      if (part != nullptr) known.insert(part->info->name);
    }
    summary_.add_coded(expected, scheme->bits, scheme->group_columns);
    return Unit{};
  }

  Status read(const RowSlice& slice, Matrix& out) const override {
    if (const Tensor* plain = files_.find(slice.base + ".weight")) {
      RS_CHECK(check_shape(*plain->info, {slice.rows, slice.cols}));
      return read_plain(*plain, 0, slice, out);
    }
    RS_TRY(const Parts parts, find(slice.base));
    const Scheme* scheme = config_.find(slice.base);
    if (scheme == nullptr) return Error{ErrorKind::kTensorMissing, slice.base + ".weight", "", ""};
    RS_CHECK(check_shapes(parts, *scheme, slice.rows, slice.cols));
    const Sizes sizes(*scheme, slice.rows, slice.cols);
    shape_coded(out, scheme->bits, slice, sizes.group);
    std::vector<uint32_t> words;
    RS_CHECK(
        read_words(*parts.codes, {slice.cols / sizes.per_word, slice.rows, slice.first_row, slice.row_count}, words));
    transpose_codes(words, out);
    RS_CHECK(read_scales(*parts.scales, sizes, slice, out));
    RS_CHECK(read_offsets(*parts.zeros, scheme->bits, sizes, slice, out));
    if (parts.group_of == nullptr) return Unit{};
    RS_TRY(const std::vector<int32_t> group_of, read_group_of(*parts.group_of, sizes.groups));
    if (!is_in_order(group_of, sizes.group)) requantise(group_of, out);
    return Unit{};
  }

  std::string name() const override {
    const std::string name = summary_.coded_name("GPTQ");
    if (!config_.orders_by_activation || !summary_.has_coded()) return name;
    return name.substr(0, name.size() - 1) + ", desc_act)";
  }

 private:
  Result<Parts> find(const std::string& base) const {
    Parts parts{};
    RS_TRY(parts.codes, find_tensor(files_, base + ".qweight"));
    RS_TRY(parts.zeros, find_tensor(files_, base + ".qzeros"));
    RS_TRY(parts.scales, find_tensor(files_, base + ".scales"));
    // Without it columns are in order, which desc_act says they are not.
    parts.group_of = files_.find(base + ".g_idx");
    if (parts.group_of == nullptr && config_.orders_by_activation) {
      return Error{ErrorKind::kTensorMissing, base + ".g_idx", "", ""};
    }
    return parts;
  }

  static Status check_shapes(const Parts& parts, const Scheme& scheme, int64_t rows, int64_t cols) {
    const Sizes sizes(scheme, rows, cols);
    RS_CHECK(check_dtype(*parts.codes->info, Dtype::kI32));
    RS_CHECK(check_dtype(*parts.zeros->info, Dtype::kI32));
    RS_CHECK(check_float(*parts.scales->info));
    if (cols % sizes.per_word != 0) {
      return Error{ErrorKind::kQuantizationUnsupported, parts.codes->info->name,
                   "columns in whole words of " + std::to_string(sizes.per_word), std::to_string(cols) + " columns"};
    }
    RS_CHECK(check_shape(*parts.codes->info, {cols / sizes.per_word, rows}));
    RS_CHECK(check_shape(*parts.zeros->info, {sizes.groups, sizes.zero_words}));
    RS_CHECK(check_shape(*parts.scales->info, {sizes.groups, rows}));
    if (parts.group_of == nullptr) return Unit{};
    RS_CHECK(check_dtype(*parts.group_of->info, Dtype::kI32));
    return check_shape(*parts.group_of->info, {cols});
  }

  static Status read_scales(const Tensor& tensor, const Sizes& sizes, const RowSlice& slice, Matrix& out) {
    std::vector<float> stored;
    RS_CHECK(read_floats(tensor, LinePart{sizes.groups, slice.rows, slice.first_row, slice.row_count}, stored));
    RS_CHECK(check_finite(*tensor.info, stored));
    out.scales.resize(stored.size());
    for (int64_t g = 0; g < sizes.groups; ++g) {
      for (int64_t row = 0; row < slice.row_count; ++row) {
        out.scales[static_cast<size_t>(row * sizes.groups + g)] =
            stored[static_cast<size_t>(g * slice.row_count + row)];
      }
    }
    return Unit{};
  }

  // All zero points are read, whatever the slice: a matrix has offsets in each of its slices or in none.
  Status read_offsets(const Tensor& tensor, int bits, const Sizes& sizes, const RowSlice& slice, Matrix& out) const {
    std::vector<uint32_t> words;
    RS_CHECK(read_words(tensor, {sizes.groups, sizes.zero_words, 0, sizes.zero_words}, words));
    if (is_symmetric(words, bits, sizes, slice.rows)) return Unit{};
    const uint32_t mask = (1u << bits) - 1;
    out.offsets.resize(out.scales.size());
    for (int64_t row = 0; row < slice.row_count; ++row) {
      const int64_t word = (slice.first_row + row) / sizes.per_word;
      const int64_t shift = (slice.first_row + row) % sizes.per_word * bits;
      for (int64_t g = 0; g < sizes.groups; ++g) {
        const uint32_t stored = words[static_cast<size_t>(g * sizes.zero_words + word)] >> shift;
        // A zero point of 0 was stored as all ones by the first convention.
        const int zero = static_cast<int>((stored + (config_.stores_zeros_minus_one ? 1 : 0)) & mask);
        const size_t at = static_cast<size_t>(row * sizes.groups + g);
        out.offsets[at] = offset_of_zero(zero, bits, out.scales[at]);
      }
    }
    return Unit{};
  }

  // Every zero point is the middle code. Past the last row a word may hold anything.
  bool is_symmetric(const std::vector<uint32_t>& words, int bits, const Sizes& sizes, int64_t rows) const {
    const auto middle = static_cast<uint32_t>(middle_code(bits) - (config_.stores_zeros_minus_one ? 1 : 0));
    uint32_t all_middle = 0;
    for (int64_t i = 0; i < sizes.per_word; ++i) all_middle = all_middle << bits | middle;
    const int64_t last_rows = rows % sizes.per_word;
    const uint32_t last_mask = last_rows == 0 ? ~0u : (1u << last_rows * bits) - 1;
    const size_t width = static_cast<size_t>(sizes.zero_words);
    for (size_t at = 0; at < words.size(); ++at) {
      const uint32_t mask = (at + 1) % width == 0 ? last_mask : ~0u;
      if (((words[at] ^ all_middle) & mask) != 0) return false;
    }
    return true;
  }

  GptqConfig config_;
  const CheckpointFiles& files_;
  LayoutSummary summary_;
};

}  // namespace

Result<std::unique_ptr<CheckpointLayout>> open_gptq(const QuantizationFields& config, const CheckpointFiles& files) {
  RS_TRY(GptqConfig parsed, GptqConfig::parse(config));
  return std::unique_ptr<CheckpointLayout>(new GptqLayout(std::move(parsed), files));
}

}  // namespace ringside
