// Matrix products on the device, and the weights that they read.
#pragma once

#include "ops/cuda/kernels.h"

namespace ssrl::cuda {

// c[rows, columns] (+)= a·b + bias. Of the three transposes: neither, b, or both.
struct Gemm {
  const void* a;  // [rows, depth]; transposed_a: [depth, rows]
  const void* b;  // [columns, depth]; transposed_b: [depth, columns]
  DType type;     // of a and b
  void* c;        // [rows, columns]
  DType c_type;
  const float* bias;  // [columns], or null
  int64_t rows, columns, depth;
  bool transposed_a, transposed_b;
  bool accumulate;  // F32 c only
};
// The bits do not depend on the number of multiprocessors, only how many blocks there are.
Status multiply(const Gemm& g, int multiprocessors, Stream stream);
Status multiply_floats(const Gemm& g, Stream stream);

}  // namespace ssrl::cuda
