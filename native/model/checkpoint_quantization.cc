#include "model/checkpoint_quantization.h"

#include <algorithm>
#include <utility>

#include "io/safetensors.h"

namespace ringside {
namespace {

constexpr size_t kMaxPatterns = 32;
constexpr std::string_view kPatternMark = "re:";

// A value in an error: never more than a few words of the file.
std::string describe(json::Value value) {
  if (value.is_string()) return std::string(value.as_string().substr(0, 64));
  if (const auto number = value.as_integer()) return std::to_string(*number);
  if (const auto truth = value.as_bool()) return *truth ? "true" : "false";
  return json::kind_name(value.kind());
}

std::string text_of(std::string_view value) { return std::string(value); }
std::string text_of(int64_t value) { return std::to_string(value); }

// "32, 64 or 128"
template <class T>
std::string list_of(std::initializer_list<T> allowed) {
  std::string text;
  for (const T* value = allowed.begin(); value != allowed.end(); ++value) {
    if (value != allowed.begin()) text += value + 1 == allowed.end() ? " or " : ", ";
    text += text_of(*value);
  }
  return text;
}

}  // namespace

Error QuantizationFields::unsupported(std::string_view field, std::string expected, std::string actual) const {
  return Error{ErrorKind::kQuantizationUnsupported, field.empty() ? name_ : name_of(field), std::move(expected),
               std::move(actual)};
}

Result<std::string_view> QuantizationFields::one_of(std::string_view field,
                                                    std::initializer_list<std::string_view> allowed,
                                                    std::optional<std::string_view> fallback) const {
  const json::Value value = find(field);
  if (value.is_null() && fallback) return *fallback;
  for (const std::string_view word : allowed) {
    if (value.is_string() && value.as_string() == word) return word;
  }
  return unsupported(field, list_of(allowed), describe(value));
}

Result<int64_t> QuantizationFields::one_of(std::string_view field, std::initializer_list<int64_t> allowed,
                                           std::optional<int64_t> fallback) const {
  const json::Value value = find(field);
  if (value.is_null() && fallback) return *fallback;
  for (const int64_t number : allowed) {
    if (value.as_integer() == number) return number;
  }
  return unsupported(field, list_of(allowed), describe(value));
}

Result<bool> QuantizationFields::boolean(std::string_view field, std::optional<bool> fallback) const {
  const json::Value value = find(field);
  if (value.is_null() && fallback) return *fallback;
  if (const auto truth = value.as_bool()) return *truth;
  return unsupported(field, "true or false", describe(value));
}

Status QuantizationFields::require_null(std::string_view field) const {
  const json::Value value = find(field);
  if (value.is_null()) return Unit{};
  return unsupported(field, "null", describe(value));
}

Status QuantizationFields::require_empty(std::string_view field) const {
  const json::Value value = find(field);
  return value.is_object() && value.size() == 0 ? Status(Unit{}) : require_null(field);
}

Status visit_modules(const QuantizationFields& fields, std::string_view field,
                     const std::function<void(std::string_view, std::optional<NamePattern>)>& each) {
  const json::Value list = fields.find(field);
  if (!list.is_array() || list.size() > kMaxTensors)
    return fields.unsupported(field, "a list of modules", describe(list));
  size_t patterns = 0;
  for (const json::Value entry : list) {
    const std::string_view text = entry.as_string();
    if (!text.starts_with(kPatternMark)) {
      if (text.empty()) return fields.unsupported(field, "module names and plain patterns", describe(entry));
      each(text, std::nullopt);
      continue;
    }
    if (++patterns > kMaxPatterns) return fields.unsupported(field, "at most 32 patterns", "more");
    std::optional<NamePattern> pattern = NamePattern::compile(text.substr(kPatternMark.size()));
    if (!pattern) return fields.unsupported(field, "module names and plain patterns", describe(entry));
    each(text, std::move(pattern));
  }
  return Unit{};
}

Result<ModuleList> ModuleList::parse(const QuantizationFields& fields, std::string_view field) {
  ModuleList modules;
  if (fields.find(field).is_null()) return modules;
  RS_CHECK(visit_modules(fields, field, [&](std::string_view text, std::optional<NamePattern> pattern) {
    if (pattern) {
      modules.patterns_.push_back(std::move(*pattern));
    } else {
      modules.names_.emplace_back(text);
    }
  }));
  std::sort(modules.names_.begin(), modules.names_.end());
  return modules;
}

bool ModuleList::contains(std::string_view module) const {
  if (std::binary_search(names_.begin(), names_.end(), module, std::less<std::string_view>())) return true;
  return std::any_of(patterns_.begin(), patterns_.end(), [&](const NamePattern& p) { return p.matches(module); });
}

}  // namespace ringside
