// Owns: whose turn it is on one model. A model and its sessions belong to one thread at a time (engine.h), so calls of
// different sessions wait for each other here, and what is closed meanwhile is freed by whoever has the turn.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "../engine.h"

namespace ringside::binding {

class SharedModel {
 public:
  // Waits for the turn; false: cancelled while waiting, see wake().
  bool enter(const CancelFlag& cancel);
  bool try_enter();
  // Frees what was retired, then gives the turn away.
  void leave();
  // After a cancel flag was set: lets a waiting call see it.
  void wake();
  // Frees a session, snapshot or model: at once when nothing runs, else when the running call ends.
  void retire(std::shared_ptr<void> object);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
  std::vector<std::shared_ptr<void>> retired_;
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
