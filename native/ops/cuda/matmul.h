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
Status multiply(const Gemm& g, Stream stream);

// out[width] += the column sums of x [rows, width].
Status add_column_sums(const void* x, DType type, int64_t rows, int64_t width, float* out, Stream stream);

}  // namespace ssrl::cuda
