// One device: its memory, its stream, and what goes back and forth between it and the host.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "ops/cuda/runtime.h"
#include "status.h"

namespace ssrl::cuda {

class Context {
 public:
  // kNoDevice says what is missing: a driver, this device, or its compute capability.
  static Result<std::unique_ptr<Context>> open(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }

  // Before anything else is asked of the device: makes it this thread's. kNoDevice once it was lost.
  Status enter();
  // What an error of the runtime means: kOutOfMemory, kNoDevice when the device is lost with it, else
  // kInternal.
  Status explain(cudaError_t error, const char* what);
  // The same for a launch that has failed.
  Status explain(Status status);

  Status allocate(size_t bytes, void** out);
  void release(void* pointer);
  Status free_memory(uint64_t* out);
  Status fill_zero(void* pointer, size_t bytes);
  Status copy(void* to, const void* from, size_t bytes);
  // May be called from any thread.
  Status copy_from_host(void* to, const void* from, size_t bytes);
  Status copy_to_host(void* to, const void* from, size_t bytes);
  Status synchronize();

  // ---- staging: small things of the host, gathered in pinned memory and sent in one copy before a launch

  // The device's copy of what `content` says now; good for what is launched before the next synchronize().
  // `place` is where the host keeps it: the same content from the same place is not sent twice.
  Status stage(const void* place, const void* content, size_t bytes, const void** on_device);
  template <typename T>
  Status stage(const T* values, int64_t count, const T** on_device) {
    const void* pointer = nullptr;
    SSRL_RETURN_IF_ERROR(stage(values, values, static_cast<size_t>(count) * sizeof(T), &pointer));
    *on_device = static_cast<const T*>(pointer);
    return {};
  }
  // Sends what was staged.
  Status flush();
  // Pinned memory that holds the device's `bytes` after the next synchronize(), until something is staged.
  Status fetch(const void* from, size_t bytes, const void** on_host);

 private:
  struct Chunk {
    char *host = nullptr, *device = nullptr;
    size_t bytes = 0, used = 0, sent = 0;
  };
  struct Staged {
    const char *host, *device;
    size_t bytes;
  };
  Context(int device, int multiprocessors) : device_(device), multiprocessors_(multiprocessors) {}
  Status take(size_t bytes, char** host, char** device);
  void reset_staging();

  int device_, multiprocessors_;
  cudaStream_t stream_ = nullptr;
  Status lost_;
  std::atomic<bool> is_lost_{false};  // once lost_ says how
  std::mutex copying_;
  std::vector<Chunk> chunks_;
  size_t open_chunk_ = 0;
  std::unordered_map<const void*, Staged> staged_;  // by place
};

}  // namespace ssrl::cuda
