// Token embedding and the copies of rows between buffers.
#include <cstring>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {

Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width, DType compute,
                 float* x) {
  parallel_for(tokens, 64, [&](int64_t token) {
    const float* from = table + ids[token] * width;
    float* to = x + token * width;
    if (compute == DType::kF32) {
      std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
    } else {
      for (int64_t j = 0; j < width; ++j) to[j] = from_bf16(to_bf16(from[j]));
    }
  });
  return {};
}

// Columns are shared out, not tokens: a repeated id would otherwise be written by two threads.
Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width, float* dtable) {
  const int64_t columns = 64;
  parallel_for((width + columns - 1) / columns, 1, [&](int64_t block) {
    const int64_t begin = block * columns, end = begin + columns < width ? begin + columns : width;
    for (int64_t token = 0; token < tokens; ++token) {
      float* to = dtable + ids[token] * width;
      for (int64_t j = begin; j < end; ++j) to[j] += dx[token * width + j];
    }
  });
  return {};
}

Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                    void* const* to) {
  const size_t bytes = static_cast<size_t>(width) * size_of(type);
  parallel_for(rows, 64, [&](int64_t row) { std::memcpy(to[row], at(from, type, row * stride), bytes); });
  return {};
}

Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows, int64_t width,
                   void* out) {
  const size_t bytes = static_cast<size_t>(width) * size_of(type);
  parallel_for(rows, 64, [&](int64_t row) {
    std::memcpy(at(out, type, row * width), at(from, type, indices[row] * width), bytes);
  });
  return {};
}

Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count) {
  if (from_type == to_type) {
    if (count > 0) std::memmove(to, from, static_cast<size_t>(count) * size_of(to_type));
    return {};
  }
  const int64_t block = 16384;
  parallel_for((count + block - 1) / block, 1, [&](int64_t piece) {
    const int64_t end = (piece + 1) * block < count ? (piece + 1) * block : count;
    for (int64_t i = piece * block; i < end; ++i) store(to, to_type, i, load(from, from_type, i));
  });
  return {};
}

}  // namespace ssrl::ops::host
