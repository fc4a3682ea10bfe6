// oneDNN's matrix product on one thread behind plain structs, its primitives made once per shape.
#pragma once

#include <cstdint>
#include <mutex>

#include "ops/ops.h"

namespace ssrl::ops::host::onednn {

// c[m, n] (+)= a[m, k]·b[k, n] + bias[n]. b lies in the packed layout of (k, n, type), unless plain_b_row is
// set.
struct Call {
  int64_t m, n, k;
  int64_t a_row, a_column;  // strides of a in elements
  int64_t c_row;            // stride of c's rows
  DType type;               // of a and b
  DType c_type;
  bool accumulate;
  int64_t plain_b_row = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  const float* bias = nullptr;
  void* c = nullptr;
};
Status matmul(const Call& call);

// A plain matrix [k, n] with strides, and the packed type.
struct Layout {
  int64_t k, n;
  int64_t row_stride, column_stride;
  DType plain_type, packed_type;
};
Status packed_bytes(int64_t k, int64_t n, DType type, size_t* bytes);
Status pack(const Layout& layout, const void* plain, void* packed);
Status unpack(const Layout& layout, const void* packed, void* plain);

bool has_bf16();

// Keeps the first error of a parallel region.
class FirstError {
 public:
  void keep(Status status) {
    if (status.ok()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (status_.ok()) status_ = std::move(status);
  }
  Status status() const { return status_; }

 private:
  std::mutex mutex_;
  Status status_;
};

}  // namespace ssrl::ops::host::onednn
