#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/f32_product.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/f32_product.h"
#include "ops/cpu/simd-inl.h"

#ifndef SSRL_OPS_CPU_F32_PRODUCT_STRIP
#define SSRL_OPS_CPU_F32_PRODUCT_STRIP
namespace ssrl::ops::host::f32_product {
// Packed b: strips of this many columns, each [k][kStrip], the last one padded with zeros.
constexpr int64_t kStrip = 16;
}  // namespace ssrl::ops::host::f32_product
#endif

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

constexpr int kVectors = static_cast<int>(f32_product::kStrip / kWidth);

// R rows of one strip. 6 rows of 2 vectors, 2 of b and 1 of a fill the 16 registers of AVX2.
template <int R>
void multiply_strip(const onednn::Call& call, int64_t row, const float* strip, int64_t column) {
  const F f;
  V sums[R][kVectors];
  for (auto& line : sums) {
    for (V& sum : line) sum = hn::Zero(f);
  }
  const float* a = static_cast<const float*>(call.a) + row * call.a_row;
  for (int64_t k = 0; k < call.k; ++k) {
    V b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = get(strip + k * f32_product::kStrip + v * kWidth);
    for (int r = 0; r < R; ++r) {
      const V value = hn::Set(f, a[r * call.a_row + k]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(value, b[v], sums[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* c = static_cast<float*>(call.c) + (row + r) * call.c_row + column;
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = call.n - column - v * kWidth;
      if (left <= 0) break;
      V sum = sums[r][v];
      if (call.bias != nullptr) sum = hn::Add(sum, get(call.bias, DType::kF32, column + v * kWidth, left));
      if (call.accumulate) sum = hn::Add(sum, get(c, DType::kF32, v * kWidth, left));
      put(sum, c, DType::kF32, v * kWidth, left);
    }
  }
}

void multiply(const onednn::Call& call) {
  for (int64_t column = 0; column < call.n; column += f32_product::kStrip) {
    const float* strip = static_cast<const float*>(call.b) + column * call.k;
    int64_t row = 0;
    for (; row + 6 <= call.m; row += 6) multiply_strip<6>(call, row, strip, column);
    for (; row < call.m; ++row) multiply_strip<1>(call, row, strip, column);
  }
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(multiply);

namespace f32_product {

size_t packed_bytes(int64_t k, int64_t n) {
  return static_cast<size_t>(k * ((n + kStrip - 1) / kStrip) * kStrip) * sizeof(float);
}

void pack(const onednn::Layout& layout, const float* plain, float* packed) {
  for (int64_t column = 0; column < layout.n; column += kStrip) {
    for (int64_t k = 0; k < layout.k; ++k) {
      for (int64_t j = column; j < column + kStrip; ++j) {
        *packed++ = j < layout.n ? plain[k * layout.row_stride + j * layout.column_stride] : 0.0f;
      }
    }
  }
}

void unpack(const onednn::Layout& layout, const float* packed, float* plain) {
  for (int64_t column = 0; column < layout.n; column += kStrip) {
    for (int64_t k = 0; k < layout.k; ++k) {
      for (int64_t j = column; j < column + kStrip; ++j, ++packed) {
        if (j < layout.n) plain[k * layout.row_stride + j * layout.column_stride] = *packed;
      }
    }
  }
}

void matmul(const onednn::Call& call) {
  HWY_DYNAMIC_DISPATCH(multiply)(call);
}

}  // namespace f32_product
}  // namespace ssrl::ops::host
#endif
