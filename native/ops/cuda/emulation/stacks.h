// The stacks of fibers, kept from block to block.
#pragma once

#include <boost/context/stack_context.hpp>
#include <cstdlib>
#include <deque>
#include <new>

#include "ops/cuda/emulation/sanitizers.h"

namespace ssrl::cuda::emulation {

// A stack, and the thread that ThreadSanitizer takes its user for.
struct Stack {
  void* memory;
  void* fiber;
};

// Stacks are kept for the next block: mapping fresh ones costs more than most kernels run.
class StackPool {
 public:
  ~StackPool() {
    for (const Stack& stack : free_) std::free(stack.memory);
  }
  // With more than a block needs, neighbouring blocks are other threads to ThreadSanitizer.
  void reserve(size_t threads) {
    const size_t count = kThreadSanitized ? 2 * threads + 1 : threads;
    while (free_.size() < count) {
      void* const memory = std::aligned_alloc(64, kStackBytes);
      if (memory == nullptr) throw std::bad_alloc();
      free_.push_back({memory, new_fiber()});
    }
  }
  Stack take() {
    const Stack stack = free_.front();
    free_.pop_front();
    allow(stack.memory, kStackBytes);
    return stack;
  }
  void give_back(const Stack& stack) { free_.push_back(stack); }

 private:
  std::deque<Stack> free_;
};

struct PooledStack {
  StackPool* pool;
  Stack stack;
  boost::context::stack_context allocate() {
    boost::context::stack_context context;
    context.size = kStackBytes;
    context.sp = static_cast<char*>(stack.memory) + kStackBytes;
    return context;
  }
  void deallocate(boost::context::stack_context&) { pool->give_back(stack); }
};

}  // namespace ssrl::cuda::emulation
