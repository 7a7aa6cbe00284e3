// Owns: whose turn it is on one model. A model and its sessions belong to one thread at a time (engine.h), so calls of
// different sessions wait for each other here, and what is closed meanwhile is freed by whoever has the turn.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../engine.h"

namespace ringside::binding {

class SharedModel {
 public:
  bool try_enter();
  // Frees what was retired, then gives the turn away.
  void leave();
  // After a cancel flag was set: lets a waiting call see it.
  void wake();
  // Frees a session, snapshot or model: at once when nothing runs, else when the running call ends.
  void retire(std::shared_ptr<void> object);

 private:
  friend class Place;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
  std::deque<uint64_t> line_;  // the tickets of those who wait, first come first
  uint64_t next_ticket_ = 0;
  std::vector<std::shared_ptr<void>> retired_;
};

// A place in the line for the turn, taken when a call is made, so that its thread may start late and still come in
// order.
class Place {
 public:
  explicit Place(std::shared_ptr<SharedModel> model);
  ~Place();  // whoever never entered leaves the line
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  // Waits for the turn; false: given up while waiting. SharedModel::wake() has `is_given_up` asked again.
  bool enter(const std::function<bool()>& is_given_up);

 private:
  void leave_line();  // with the mutex held

  const std::shared_ptr<SharedModel> model_;
  uint64_t ticket_ = 0;
};

// Gives the turn back when it goes out of scope.
class Turn {
 public:
  explicit Turn(SharedModel& model) : model_(model) {}
  ~Turn() { model_.leave(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  SharedModel& model_;
};

}  // namespace ringside::binding
