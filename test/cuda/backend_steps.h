// Owns: driving a backend's table by steps, and timing its calls.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backend_model.h"
#include "check.h"

namespace backend_steps {

// Logits of every token of `ids`, taken by steps of the given lengths, the last repeating.
inline backend_model::Bits step_through(const rs_backend* backend, backend_model::Model& model,
                                        backend_model::Session& session, const std::vector<int32_t>& ids,
                                        const std::vector<int64_t>& lengths, int64_t vocab) {
  backend_model::Bits logits(ids.size() * static_cast<size_t>(vocab), NAN);
  size_t piece = 0;
  for (size_t done = 0; done < ids.size();) {
    const size_t count =
        std::min(ids.size() - done, static_cast<size_t>(lengths[std::min(piece++, lengths.size() - 1)]));
    const rs_step step{session.get(), ids.data() + done, static_cast<int64_t>(count), RS_LOGITS_ALL,
                       logits.data() + done * static_cast<size_t>(vocab)};
    rs_error error{};
    CHECK_EQ(backend->step(model.get(), &step, 1, nullptr, &error), 0);
    done += count;
  }
  return logits;
}

// Milliseconds of a call, the median of several.
template <class Call>
double milliseconds(int times, const Call& call) {
  std::vector<double> all;
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    all.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(all);
  return all[all.size() / 2];
}

}  // namespace backend_steps
