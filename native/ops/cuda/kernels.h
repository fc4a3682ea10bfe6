// The families of the CUDA backend, one .cu file each; cuda_ops.cc forwards the methods of Ops here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/ops.h"

namespace ssrl::cuda {

// ---- column_sums.cu

// out[width] += the column sums of x [rows, width], in an order that depends on `rows` only.
Status add_column_sums(const void* x, DType type, int64_t rows, int64_t width, float* out, Stream stream);

// ---- norm.cu

// Rows of RmsNormBackward::scratch.
constexpr int kNormParts = 1056;  // two blocks of four for each of 132 multiprocessors
Status rms_norm(const ops::RmsNorm& a, Stream stream);
Status rms_norm_backward(const ops::RmsNormBackward& a, Stream stream);

// ---- rope.cu, swiglu.cu

Status rope(const ops::Rope& a, Stream stream);
Status swiglu(const ops::Swiglu& a, Stream stream);
Status swiglu_backward(const ops::SwigluBackward& a, Stream stream);

// ---- embedding.cu

struct Embedding {
  const int32_t* ids;  // [tokens]
  int64_t tokens;
  const void* table;  // [vocabulary, width]
  int64_t width;
  float* x;  // [tokens, width]
};
// Rows of a table of type `from`, rounded to `compute`.
Status embedding(const Embedding& a, DType from, DType compute, Stream stream);

struct EmbeddingBackward {
  const int32_t* ids;  // [tokens]
  int64_t tokens;
  const float* dx;  // [tokens, width]
  int64_t width;
  float* dtable;  // [vocabulary, width], added to
};
Status embedding_backward(const EmbeddingBackward& a, Stream stream);

struct CopyRows {
  const void* from;
  int64_t from_stride;     // bytes
  const int64_t* indices;  // [rows] of `from`, or null: row i
  void* to;
  const int64_t* offsets;  // [rows] bytes from `to` where each row goes, or null: one after another
  int64_t rows;
  int64_t bytes;  // of a row, even
};
Status copy_rows(const CopyRows& a, Stream stream);

struct Convert {
  const void* from;
  void* to;
  int64_t count;
};
Status convert(const Convert& a, DType from, DType to, Stream stream);

// ---- optimizer.cu

Status adamw(const ops::AdamW& a, Stream stream);

constexpr int kSquareParts = 1024;
// parts [kSquareParts + 1] of device memory; the sum ends up in the last.
Status sum_of_squares(const float* x, int64_t count, double* parts, Stream stream);

// ---- sampling.cu

Status sample(const ops::Sample& a, Stream stream);

// Calls body(T()) with the element type that `type` names.
template <typename Body>
Status with_type(DType type, const Body& body) {
  return type == DType::kF32 ? body(float()) : body(Bf16());
}

}  // namespace ssrl::cuda
