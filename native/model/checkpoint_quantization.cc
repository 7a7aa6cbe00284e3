#include "model/checkpoint_quantization.h"

#include <algorithm>

#include "io/json.h"
#include "io/safetensors.h"

namespace ringside {
namespace {

constexpr size_t kMaxPatterns = 32;
constexpr std::string_view kPatternMark = "re:";

class QuantizationParser {
 public:
  QuantizationParser(json::Value root, const std::string& path)
      : root_(root), prefix_(path + ": quantization_config.") {}

  Result<Quantization> parse() {
    RS_CHECK(require(root_, "", "quant_method", "compressed-tensors"));
    RS_CHECK(require(root_, "", "format", "pack-quantized"));
    RS_CHECK(require_null("", "kv_cache_scheme", root_.find("kv_cache_scheme")));
    const json::Value sparsity = root_.find("sparsity_config");
    if (sparsity.size() > 0) return unsupported("sparsity_config", "nothing", "an object");
    const json::Value groups = root_.find("config_groups");
    if (!groups.is_object() || groups.size() != 1) {
      return unsupported("config_groups", "one group", std::to_string(groups.size()));
    }
    const std::string group = "config_groups." + std::string(groups.begin().key().substr(0, 64)) + ".";
    RS_CHECK(parse_group(*groups.begin(), group));
    RS_CHECK(parse_list(root_.find("ignore"), "ignore", result_.ignore));
    return std::move(result_);
  }

 private:
  Error unsupported(const std::string& field, std::string expected, std::string actual) const {
    return Error{ErrorKind::kQuantizationUnsupported, prefix_ + field, std::move(expected), std::move(actual)};
  }

  Status require(json::Value in, const std::string& where, const char* field, std::string_view expected) const {
    const json::Value value = in.find(field);
    if (value.is_string() && value.as_string() == expected) return Unit{};
    return unsupported(
        where + field, std::string(expected),
        value.is_string() ? std::string(value.as_string().substr(0, 64)) : json::kind_name(value.kind()));
  }

  Status require_null(const std::string& where, const char* field, json::Value value) const {
    if (value.is_null()) return Unit{};
    return unsupported(where + field, "null", json::kind_name(value.kind()));
  }

  Status parse_group(json::Value group, const std::string& name) {
    RS_CHECK(require_null(name, "input_activations", group.find("input_activations")));
    RS_CHECK(require_null(name, "output_activations", group.find("output_activations")));
    if (!group.find("format").is_null()) RS_CHECK(require(group, name, "format", "pack-quantized"));
    const json::Value targets = group.find("targets");
    if (targets.size() == 0) return unsupported(name + "targets", "a list of modules", json::kind_name(targets.kind()));
    RS_CHECK(parse_list(targets, name + "targets", result_.targets));
    return parse_weights(group.find("weights"), name + "weights.");
  }

  Status parse_weights(json::Value weights, const std::string& name) {
    const auto number = [&](const char* field) { return weights.find(field).as_integer().value_or(-1); };
    if (number("num_bits") != 8) return unsupported(name + "num_bits", "8", std::to_string(number("num_bits")));
    RS_CHECK(require(weights, name, "type", "int"));
    if (weights.find("symmetric").as_bool() != true) return unsupported(name + "symmetric", "true", "");
    if (weights.find("dynamic").as_bool() == true) return unsupported(name + "dynamic", "false", "true");
    // "weight" and "static" reorder nothing in the file; a reordering by group would need an index tensor.
    const std::string_view order = weights.find("actorder").as_string();
    if (!order.empty() && order != "weight" && order != "static") {
      return unsupported(name + "actorder", "null", std::string(order.substr(0, 64)));
    }
    const std::string_view strategy = weights.find("strategy").as_string();
    if (strategy == "channel") {
      result_.group_columns = 0;
      return Unit{};
    }
    if (strategy != "group") {
      return unsupported(name + "strategy", "group or channel", std::string(strategy.substr(0, 64)));
    }
    result_.group_columns = number("group_size");
    if (result_.group_columns != 32 && result_.group_columns != 64 && result_.group_columns != 128) {
      return unsupported(name + "group_size", "32, 64 or 128", std::to_string(result_.group_columns));
    }
    return Unit{};
  }

  Status parse_list(json::Value list, const std::string& field, ModuleList& out) const {
    if (list.is_null()) return Unit{};
    if (!list.is_array() || list.size() > kMaxTensors) {
      return unsupported(field, "a list of modules", json::kind_name(list.kind()));
    }
    size_t patterns = 0;
    for (const json::Value entry : list) {
      const std::string_view text = entry.as_string();
      if (text.starts_with(kPatternMark) && ++patterns > kMaxPatterns) {
        return unsupported(field, "at most 32 patterns", "more");
      }
      if (text.empty() || !out.add(text)) {
        return unsupported(field, "module names and plain patterns", std::string(text.substr(0, 64)));
      }
    }
    out.seal();
    return Unit{};
  }

  json::Value root_;
  std::string prefix_;
  Quantization result_;
};

}  // namespace

bool ModuleList::add(std::string_view entry) {
  if (!entry.starts_with(kPatternMark)) {
    names_.emplace_back(entry);
    return true;
  }
  std::optional<NamePattern> pattern = NamePattern::compile(entry.substr(kPatternMark.size()));
  if (pattern) patterns_.push_back(std::move(*pattern));
  return pattern.has_value();
}

void ModuleList::seal() { std::sort(names_.begin(), names_.end()); }

bool ModuleList::contains(std::string_view module) const {
  if (std::binary_search(names_.begin(), names_.end(), module, std::less<std::string_view>())) return true;
  return std::any_of(patterns_.begin(), patterns_.end(), [&](const NamePattern& p) { return p.matches(module); });
}

Result<std::optional<Quantization>> parse_quantization(const std::string& config_text, const std::string& path) {
  json::Document document;
  RS_CHECK(document.parse(config_text, path));
  const json::Value config = document.root().find("quantization_config");
  if (config.is_null()) return std::optional<Quantization>();
  RS_TRY(Quantization quantization, QuantizationParser(config, path).parse());
  return std::optional<Quantization>(std::move(quantization));
}

}  // namespace ringside
