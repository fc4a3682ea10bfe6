// How long-running work is stopped from outside: the caller raises a flag, the work looks at it between steps
// or layers.
#pragma once

#include <atomic>

#include "status.h"

namespace ssrl {

// Raised once, when the process leaves: everything that runs stops at its next look.
inline std::atomic<bool> process_stopping{false};

class AbortFlag {
 public:
  void raise() { raised_.store(true, std::memory_order_relaxed); }
  bool raised() const {
    return raised_.load(std::memory_order_relaxed) || process_stopping.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<bool> raised_{false};
};

// kAborted once the flag (null: none) is raised.
inline Status check_abort(const AbortFlag* flag) {
  if (flag ? flag->raised() : process_stopping.load(std::memory_order_relaxed)) {
    return {Code::kAborted, "The operation was aborted"};
  }
  return {};
}

}  // namespace ssrl
