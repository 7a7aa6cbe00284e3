#include "shared_model.h"

#include <utility>

namespace ringside::binding {

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

Place::Place(std::shared_ptr<SharedModel> model) : model_(std::move(model)) {
  const std::lock_guard lock(model_->mutex_);
  ticket_ = model_->next_ticket_++;
  model_->line_.push_back(ticket_);
}

Place::~Place() {
  const std::lock_guard lock(model_->mutex_);
  leave_line();
}

void Place::leave_line() {
  std::erase(model_->line_, ticket_);
  model_->changed_.notify_all();
}

// The wait needs no time limit: whoever sets a cancel flag also calls wake().
bool Place::enter(const std::function<bool()>& is_given_up) {
  std::unique_lock lock(model_->mutex_);
  const auto is_next = [&] { return !model_->taken_ && model_->line_.front() == ticket_; };
  model_->changed_.wait(lock, [&] { return is_next() || is_given_up(); });
  const bool enters = !is_given_up();
  leave_line();
  if (enters) model_->taken_ = true;
  return enters;
}

}  // namespace ringside::binding
