#include "model/checkpoint_mlx.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "model/checkpoint_codes.h"
#include "model/checkpoint_plain.h"

namespace ringside {
namespace {

using Tensor = CheckpointFiles::Tensor;

constexpr std::string_view kRouter = ".mlp.gate";
constexpr std::string_view kExperts = ".mlp.experts.";
constexpr std::string_view kStack = ".mlp.switch_mlp.";

struct Scheme {
  int bits = 4;
  int64_t group_columns = 64;
};

struct MlxConfig {
  Scheme scheme;
  // By the module's name in the file; nothing: stored as numbers.
  std::map<std::string, std::optional<Scheme>, std::less<>> overrides;

  static Result<MlxConfig> parse(const QuantizationFields& config) {
    MlxConfig out;
    RS_TRY(out.scheme, parse_scheme(config, std::nullopt));
    const json::Value members = config.object();
    for (auto member = members.begin(); member != members.end(); ++member) {
      const json::Value value = *member;
      const std::string name(member.key());
      if (value.is_object()) {
        // What an override leaves out is the library's default, not the file's scheme.
        RS_TRY(const Scheme scheme, parse_scheme(config.child(name), Scheme{}));
        out.overrides.emplace(name, scheme);
      } else if (value.as_bool() == false) {
        out.overrides.emplace(name, std::nullopt);
      } else if (value.as_bool() == true) {
        out.overrides.emplace(name, out.scheme);
      }
    }
    return out;
  }

 private:
  static Result<Scheme> parse_scheme(const QuantizationFields& fields, std::optional<Scheme> fallback) {
    Scheme scheme;
    const auto of_fallback = [&](int64_t value) { return fallback ? std::optional<int64_t>(value) : std::nullopt; };
    RS_TRY(const int64_t bits, fields.one_of("bits", {4, 8}, of_fallback(scheme.bits)));
    RS_TRY(scheme.group_columns, fields.one_of("group_size", {32, 64, 128}, of_fallback(scheme.group_columns)));
    RS_TRY([[maybe_unused]] const auto mode, fields.one_of("mode", {"affine"}, "affine"));
    scheme.bits = static_cast<int>(bits);
    return scheme;
  }
};

// Where a matrix of the architecture lies: the module's name in the file, and its place in a stack.
struct Place {
  std::string module;
  int64_t expert = -1;  // not stacked
};

Place place_of(const std::string& base) {
  if (base.ends_with(kRouter)) return {base + ".gate_proj"};
  const size_t at = base.find(kExperts);
  if (at == std::string::npos) return {base};
  const char* number = base.data() + at + kExperts.size();
  Place place;
  const auto [end, code] = std::from_chars(number, base.data() + base.size(), place.expert);
  if (code != std::errc() || end == base.data() + base.size() || *end != '.') return {base};
  place.module = base.substr(0, at).append(kStack).append(end + 1, base.data() + base.size());
  return place;
}

struct Parts {
  const Tensor* weight;
  const Tensor* scales;  // nullptr, both: stored as numbers
  const Tensor* biases;
};

class MlxLayout final : public CheckpointLayout {
 public:
  MlxLayout(std::optional<MlxConfig> config, int64_t experts, const CheckpointFiles& files)
      : config_(std::move(config)), experts_(experts), files_(files) {}

  Status check(const ExpectedTensor& expected, KnownTensors& known) override {
    const Place place = place_of(expected.base());
    RS_TRY(const std::optional<Scheme> scheme, scheme_of(place.module));
    RS_TRY(const Parts parts, find(place.module, scheme.has_value()));
    if (!scheme) {
      return check_plain(expected, *parts.weight, shape_of(place, expected.rows, expected.cols), summary_, known);
    }
    RS_CHECK(check_shapes(parts, *scheme, place, expected.rows, expected.cols));
    for (const Tensor* part : {parts.weight, parts.scales, parts.biases}) known.insert(part->info->name);
    summary_.add_coded(expected, scheme->bits, scheme->group_columns);
    return Unit{};
  }

  Status read(const RowSlice& slice, Matrix& out) const override {
    const Place place = place_of(slice.base);
    RS_TRY(const std::optional<Scheme> scheme, scheme_of(place.module));
    RS_TRY(const Parts parts, find(place.module, scheme.has_value()));
    const int64_t stack_row = std::max<int64_t>(0, place.expert) * slice.rows;
    if (!scheme) {
      RS_CHECK(check_shape(*parts.weight->info, shape_of(place, slice.rows, slice.cols)));
      return read_plain(*parts.weight, stack_row, slice, out);
    }
    RS_CHECK(check_shapes(parts, *scheme, place, slice.rows, slice.cols));
    shape_coded(out, scheme->bits, slice, scheme->group_columns);
    const int64_t first_row = stack_row + slice.first_row;
    const int64_t row_bytes = slice.cols * scheme->bits / 8;
    RS_CHECK(parts.weight->file->read(*parts.weight->info, first_row * row_bytes, out.data.data(),
                                      slice.row_count * row_bytes));
    sign_codes(out);
    const int64_t groups = out.group_count();
    RS_CHECK(read_floats(*parts.scales, first_row * groups, slice.row_count * groups, out.scales));
    RS_CHECK(read_floats(*parts.biases, first_row * groups, slice.row_count * groups, out.offsets));
    RS_CHECK(check_finite(*parts.scales->info, out.scales));
    RS_CHECK(check_finite(*parts.biases->info, out.offsets));
    // Unsigned codes become signed ones by a shift, which the offset takes back.
    const float middle = static_cast<float>(middle_code(scheme->bits));
    for (size_t i = 0; i < out.offsets.size(); ++i) out.offsets[i] += middle * out.scales[i];
    return Unit{};
  }

  std::string name() const override { return summary_.coded_name("MLX"); }

 private:
  // Nothing: stored as numbers. A module without an exception is quantised where it has scales.
  Result<std::optional<Scheme>> scheme_of(const std::string& module) const {
    const bool has_scales = files_.find(module + ".scales") != nullptr;
    if (!config_) return std::optional<Scheme>();
    const auto found = config_->overrides.find(module);
    if (found == config_->overrides.end()) return has_scales ? std::optional(config_->scheme) : std::nullopt;
    if (found->second || !has_scales) return found->second;
    return Error{ErrorKind::kQuantizationUnsupported, module, "a plain weight, because \"quantization\" excludes it",
                 "scales"};
  }

  Result<Parts> find(const std::string& module, bool is_coded) const {
    Parts parts{};
    RS_TRY(parts.weight, find_tensor(files_, module + ".weight"));
    if (!is_coded) return parts;
    RS_TRY(parts.scales, find_tensor(files_, module + ".scales"));
    RS_TRY(parts.biases, find_tensor(files_, module + ".biases"));
    return parts;
  }

  Shape shape_of(const Place& place, int64_t rows, int64_t width) const {
    return place.expert < 0 ? Shape{rows, width} : Shape{experts_, rows, width};
  }

  Status check_shapes(const Parts& parts, const Scheme& scheme, const Place& place, int64_t rows, int64_t cols) const {
    RS_CHECK(check_dtype(*parts.weight->info, Dtype::kU32));
    RS_CHECK(check_float(*parts.scales->info));
    RS_CHECK(check_float(*parts.biases->info));
    if (cols % scheme.group_columns != 0) {
      return Error{ErrorKind::kQuantizationUnsupported, parts.weight->info->name,
                   "columns in whole groups of " + std::to_string(scheme.group_columns),
                   std::to_string(cols) + " columns"};
    }
    const int64_t words = cols / codes_per_word(scheme.bits);
    const int64_t groups = cols / scheme.group_columns;
    RS_CHECK(check_shape(*parts.weight->info, shape_of(place, rows, words)));
    RS_CHECK(check_shape(*parts.scales->info, shape_of(place, rows, groups)));
    return check_shape(*parts.biases->info, shape_of(place, rows, groups));
  }

  std::optional<MlxConfig> config_;  // nothing: an unquantised conversion
  int64_t experts_;
  const CheckpointFiles& files_;
  LayoutSummary summary_;
};

}  // namespace

bool has_mlx_names(const CheckpointFiles& files) {
  return std::any_of(files.tensors().begin(), files.tensors().end(), [](const auto& entry) {
    return entry.first.find(kStack) != std::string_view::npos || entry.first.ends_with(".mlp.gate.gate_proj.weight");
  });
}

Result<std::unique_ptr<CheckpointLayout>> open_mlx(const std::optional<QuantizationFields>& config, int64_t experts,
                                                   const CheckpointFiles& files) {
  std::optional<MlxConfig> parsed;
  if (config) {
    RS_TRY(parsed, MlxConfig::parse(*config));
  }
  return std::unique_ptr<CheckpointLayout>(new MlxLayout(std::move(parsed), experts, files));
}

}  // namespace ringside
