// What AddressSanitizer and ThreadSanitizer are told of fibers; nothing in other builds. For ThreadSanitizer
// a CUDA thread is a thread of its own, and nothing but a barrier orders what two of them do: neither that
// one OS thread runs them in turns, nor shuffles.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(SSRL_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* address, unsigned long size);
}
#endif

namespace ssrl::cuda::emulation {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = size_t{512} << 10;  // red zones take room
#else
constexpr size_t kStackBytes = size_t{128} << 10;
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SSRL_THREAD_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#if defined(SSRL_THREAD_SANITIZER)
constexpr bool kThreadSanitized = true;
#else
constexpr bool kThreadSanitized = false;
#endif

// A stack, and who runs on it.
struct Execution {
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;
  void* fiber = nullptr;
};

// Before `from` goes on to `to`; null for one that will not come back.
inline void leave(Execution* from, const Execution& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from == nullptr ? nullptr : &from->fake_stack, to.bottom, to.bytes);
#endif
#if defined(SSRL_THREAD_SANITIZER)
  __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
  (void)from, (void)to;
}

// After one has come to `here`, from `before`.
inline void arrive_at(Execution& here, Execution* before) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(here.fake_stack, &before->bottom, &before->bytes);
#endif
  (void)here, (void)before;
}

inline void* current_fiber() {
#if defined(SSRL_THREAD_SANITIZER)
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}

inline void* new_fiber() {
#if defined(SSRL_THREAD_SANITIZER)
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}

// What was done before give() is over after take() of the same address.
inline void give(void* address) {
#if defined(SSRL_THREAD_SANITIZER)
  __tsan_release(address);
#endif
  (void)address;
}
inline void take(void* address) {
#if defined(SSRL_THREAD_SANITIZER)
  __tsan_acquire(address);
#endif
  (void)address;
}

// What one lane does for others, as the hardware would, and what the emulation keeps books of.
class Unseen {
 public:
  Unseen() {
#if defined(SSRL_THREAD_SANITIZER)
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  }
  ~Unseen() {
#if defined(SSRL_THREAD_SANITIZER)
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
  }
};

// A read that is done by another lane.
inline void note_read(const void* address, size_t bytes) {
#if defined(SSRL_THREAD_SANITIZER)
  __tsan_read_range(const_cast<void*>(address), bytes);
#endif
  (void)address, (void)bytes;
}

// Memory that nobody may touch, until it is given out again.
inline void forbid(const void* address, size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(address, bytes);
#endif
  (void)address, (void)bytes;
}
inline void allow(const void* address, size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(address, bytes);
#endif
  (void)address, (void)bytes;
}

}  // namespace ssrl::cuda::emulation
