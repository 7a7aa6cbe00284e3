// Owns: reading test/golden/*/cases.json, and what "agrees with a stored number" means.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "io/file.h"
#include "io/json.h"

namespace golden {

struct Case {
  std::vector<int32_t> ids;
  int32_t next = 0;
  std::vector<int32_t> argmax;
  std::vector<double> margin, logprob, last_logits;
  std::vector<double> state_norm;  // [linear layers, heads]

  // The token that follows position i.
  int32_t following(size_t i) const { return i + 1 < ids.size() ? ids[i + 1] : next; }
};

inline std::vector<double> numbers(ringside::json::Value list) {
  std::vector<double> out;
  for (const ringside::json::Value item : list) out.push_back(item.as_number().value_or(NAN));
  return out;
}

inline std::vector<int32_t> integers(ringside::json::Value list) {
  std::vector<int32_t> out;
  for (const ringside::json::Value item : list) out.push_back(static_cast<int32_t>(item.as_integer().value_or(-1)));
  return out;
}

// Empty, after a failed check, when the file cannot be read.
inline std::vector<Case> read_cases(const std::string& name) {
  const std::string path = std::string(RS_GOLDEN_DIR) + "/" + name + "/cases.json";
  const auto text = ringside::read_text(path, int64_t{16} << 20);
  ringside::json::Document document;
  const bool parsed = text.ok() && document.parse(text.value(), path).ok();
  std::vector<Case> cases;
  if (parsed) {
    for (const ringside::json::Value item : document.root().find("cases")) {
      Case one;
      one.ids = integers(item.find("ids"));
      one.next = static_cast<int32_t>(item.find("next").as_integer().value_or(-1));
      one.argmax = integers(item.find("argmax"));
      one.margin = numbers(item.find("margin"));
      one.logprob = numbers(item.find("logprob"));
      one.last_logits = numbers(item.find("last_logits"));
      for (const ringside::json::Value layer : item.find("state_norm")) {
        for (const double norm : numbers(layer)) one.state_norm.push_back(norm);
      }
      cases.push_back(std::move(one));
    }
  }
  CHECK(!cases.empty());
  return cases;
}

// True when `value`, rounded to `digits` significant digits, is `stored`. A hundredth of a unit is left for the last
// bits of a double: two float64 programs may round a tie to different sides.
inline bool agrees(double value, double stored, int digits) {
  if (stored == 0.0) return std::fabs(value) < std::pow(10.0, -digits);
  const double unit = std::pow(10.0, std::floor(std::log10(std::fabs(stored))) - digits + 1);
  return std::fabs(value - stored) <= 0.51 * unit;
}

template <class Number>
double logprob(const Number* logits, size_t count, int32_t id) {
  double largest = logits[0];
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<double>(logits[i]));
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return static_cast<double>(logits[static_cast<size_t>(id)]) - largest - std::log(sum);
}

// Lower ids win ties.
template <class Number>
int32_t argmax(const Number* logits, size_t count) {
  return static_cast<int32_t>(std::max_element(logits, logits + count) - logits);
}

}  // namespace golden
