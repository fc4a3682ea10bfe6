// A weight for the two ways to multiply by it: strips.h, and oneDNN where that is faster.
#pragma once

#include <cstdint>
#include <memory>

#include "ops/ops.h"

namespace ssrl::ops::host {

// c[rows, n] (+)= a[rows, k]·B + bias
struct MatrixProduct {
  const void* a;  // of the matrix's type, rows contiguous
  int64_t rows;
  const float* bias;  // [n] or null
  void* c;
  DType c_type;
  bool accumulate;  // F32 c only
};

// dweight[outputs, inputs] += dyᵀ·x
struct WeightGradient {
  const void* dy;  // [rows, outputs]
  const void* x;   // [rows, inputs]
  DType type;      // of both
  int64_t rows, outputs, inputs;
  float* dweight;
};

// B[k, n], packed.
class Matrix {
 public:
  Matrix(int64_t k, int64_t n, DType type) : k_(k), n_(n), type_(type) {}
  virtual ~Matrix() = default;
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  DType type() const { return type_; }
  size_t bytes() const { return bytes_; }

  // B[k, n] = source[k * k_stride + n * n_stride], rounded to the type; one of the strides is 1.
  virtual Status fill(const float* source, int64_t k_stride, int64_t n_stride) = 0;
  virtual Status multiply(const MatrixProduct& product) const = 0;
  // The same with Bᵀ: c[rows, k] (+)= a[rows, n]·Bᵀ + bias
  virtual Status multiply_transposed(const MatrixProduct& product) = 0;

 protected:
  size_t bytes_ = 0;

 private:
  int64_t k_, n_;
  DType type_;
};

std::unique_ptr<Matrix> make_strip_matrix(int64_t k, int64_t n, DType type);
Status strip_weight_gradient(const WeightGradient& g);
std::unique_ptr<Matrix> make_onednn_matrix(int64_t k, int64_t n, DType type);
Status onednn_weight_gradient(const WeightGradient& g);

// Whether SSRL_CPU asks for the products of AMX machines, which are oneDNN's.
bool is_amx_asked_for();

}  // namespace ssrl::ops::host
