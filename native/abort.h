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
  // The first reason stays: what a disposal stops is kDisposed, also where it had not begun.
  void raise(Code reason = Code::kAborted) {
    Code none = Code::kOk;
    reason_.compare_exchange_strong(none, reason, std::memory_order_relaxed);
  }
  bool raised() const { return reason() != Code::kOk; }
  // kOk: not raised.
  Code reason() const {
    const Code reason = reason_.load(std::memory_order_relaxed);
    if (reason != Code::kOk) return reason;
    return process_stopping.load(std::memory_order_relaxed) ? Code::kAborted : Code::kOk;
  }

 private:
  std::atomic<Code> reason_{Code::kOk};
};

// kAborted or kDisposed once the flag (null: none) is raised.
inline Status check_abort(const AbortFlag* flag) {
  const Code process = process_stopping.load(std::memory_order_relaxed) ? Code::kAborted : Code::kOk;
  const Code reason = flag ? flag->reason() : process;
  if (reason == Code::kOk) return {};
  return {reason, reason == Code::kDisposed ? "The policy was disposed of" : "The operation was aborted"};
}

}  // namespace ssrl
