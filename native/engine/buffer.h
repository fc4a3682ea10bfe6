// Backend memory that is released with its owner.
#pragma once

#include <cstddef>
#include <utility>

#include "ops/ops.h"
#include "status.h"

namespace ssrl {

class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // The old memory goes first, so that growing never holds both.
  Status allocate(ops::Ops& ops, size_t bytes) {
    reset();
    SSRL_RETURN_IF_ERROR(ops.allocate(bytes, &data_));
    ops_ = &ops;
    bytes_ = bytes;
    return {};
  }
  // Keeps what is large enough; else the content is lost.
  Status reserve(ops::Ops& ops, size_t bytes) { return bytes <= bytes_ ? Status() : allocate(ops, bytes); }
  void reset() {
    if (ops_ != nullptr) ops_->release(data_);
    ops_ = nullptr;
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) {
    std::swap(ops_, other.ops_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  ops::Ops* ops_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ssrl
