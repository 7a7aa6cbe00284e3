// Owns: reading a quantization_config field by field, so that whatever a layout does not read is refused by the field's
// name. Private to model/.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"
#include "io/json.h"
#include "model/checkpoint_pattern.h"

namespace ringside {

// An object of the configuration and the name it has in errors.
class QuantizationFields {
 public:
  QuantizationFields(json::Value object, std::string name) : object_(object), name_(std::move(name)) {}

  json::Value find(std::string_view field) const { return object_.find(field); }
  json::Value object() const { return object_; }
  QuantizationFields child(std::string_view field) const { return {find(field), name_of(field)}; }

  Error unsupported(std::string_view field, std::string expected, std::string actual) const;
  // The one of `allowed` that the field says; `fallback` where it is absent or null, an error if there is none.
  Result<std::string_view> one_of(std::string_view field, std::initializer_list<std::string_view> allowed,
                                  std::optional<std::string_view> fallback) const;
  Result<int64_t> one_of(std::string_view field, std::initializer_list<int64_t> allowed,
                         std::optional<int64_t> fallback) const;
  Result<bool> boolean(std::string_view field, std::optional<bool> fallback) const;
  Status require_null(std::string_view field) const;   // or absent
  Status require_empty(std::string_view field) const;  // or an object without members

 private:
  std::string name_of(std::string_view field) const { return name_ + "." + std::string(field.substr(0, 64)); }

  json::Value object_;
  std::string name_;
};

// Calls `each` with every entry of a list of module names and "re:" patterns. The pattern is compiled; nothing for a
// plain name. A list that is none, an entry that is none and a pattern that is not supported are refused.
Status visit_modules(const QuantizationFields& fields, std::string_view field,
                     const std::function<void(std::string_view text, std::optional<NamePattern> pattern)>& each);

// A list of plain names and "re:" patterns.
class ModuleList {
 public:
  static Result<ModuleList> parse(const QuantizationFields& fields, std::string_view field);
  bool contains(std::string_view module) const;

 private:
  std::vector<std::string> names_;  // sorted
  std::vector<NamePattern> patterns_;
};

}  // namespace ringside
