#include "shared_model.h"

#include <utility>

namespace ringside::binding {

// The wait needs no time limit: whoever sets a cancel flag also calls wake().
bool SharedModel::enter(const CancelFlag& cancel) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !taken_ || cancel.cancelled(); });
  if (cancel.cancelled()) return false;
  taken_ = true;
  return true;
}

bool SharedModel::try_enter() {
  const std::lock_guard lock(mutex_);
  if (taken_) return false;
  taken_ = true;
  return true;
}

void SharedModel::leave() {
  std::unique_lock lock(mutex_);
  while (!retired_.empty()) {
    std::vector<std::shared_ptr<void>> dropped = std::exchange(retired_, {});
    lock.unlock();  // freeing weights takes a while, and JavaScript may want to retire more
    dropped.clear();
    lock.lock();
  }
  taken_ = false;
  changed_.notify_all();
}

void SharedModel::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void SharedModel::retire(std::shared_ptr<void> object) {
  {
    const std::lock_guard lock(mutex_);
    retired_.push_back(std::move(object));
    if (taken_) return;
    taken_ = true;
  }
  leave();
}

}  // namespace ringside::binding
