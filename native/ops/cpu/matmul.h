// A weight for the two ways to multiply by it: strips.h, and oneDNN where that is faster.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "ops/ops.h"

namespace ssrl::ops::host {

// c[rows, n] (+)= a[rows, k]·B + bias
struct MatrixProduct {
  const void* a;    // of the matrix's type
  int64_t a_width;  // elements between its rows
  int64_t rows;
  const float* bias;  // [n] or null
  void* c;
  DType c_type;
  bool accumulate;  // F32 c only
};

// dweight[outputs, inputs] += dyᵀ·x
struct WeightGradient {
  const void* dy;    // [rows, outputs]
  int64_t dy_width;  // elements between its rows
  const void* x;     // [rows, inputs]
  DType type;        // of both
  int64_t rows, outputs, inputs;
  float* dweight;
};

// Makes columns `first` .. `first + count` of a source ready, on any thread.
using PrepareColumns = std::function<void(int64_t first, int64_t count)>;

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

  // B[k, n] = source[k * k_stride + n * n_stride], rounded to the type; one of the strides is 1. Before
  // columns are read, each once, `prepare` is called for them.
  virtual Status fill(const float* source, int64_t k_stride, int64_t n_stride,
                      const PrepareColumns& prepare = nullptr) = 0;
  virtual Status multiply(const MatrixProduct& product) const = 0;
  // The same with Bᵀ: c[rows, k] (+)= a[rows, n]·Bᵀ + bias
  virtual Status multiply_transposed(const MatrixProduct& product) = 0;
  // Gives back what only multiply_transposed needs.
  virtual void trim() {}
  // out[i, k] = column columns[i]
  virtual Status unpack_columns(const int32_t* columns, int64_t count, float* out) const = 0;

 protected:
  size_t bytes_ = 0;

 private:
  int64_t k_, n_;
  DType type_;
};

// dx = dy·W and dW += dyᵀ·x
Status backward_input(PackedWeight& weight, const MatrixProduct& product);
Status backward_weight(const WeightGradient& gradient);

// repack() of rows of `weight` that are made as they are wanted, and still in the cache.
Status repack_prepared(const float* weight, PackedWeight* packed, const PrepareColumns& prepare);

std::unique_ptr<Matrix> make_strip_matrix(int64_t k, int64_t n, DType type);
Status strip_weight_gradient(const WeightGradient& g);
std::unique_ptr<Matrix> make_onednn_matrix(int64_t k, int64_t n, DType type);
Status onednn_weight_gradient(const WeightGradient& g);

// Whether SSRL_CPU asks for the products of AMX machines, which are oneDNN's.
bool is_amx_asked_for();

}  // namespace ssrl::ops::host
