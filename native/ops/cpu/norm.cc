// RMS norm, forward and backward. A row is summed in an order that depends on its width only.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

void norm_row(const RmsNorm& a, int64_t i) {
  const int64_t width = a.width, token = i / a.groups, group = i % a.groups;
  const int64_t from = token * a.x_stride + group * width, to = token * a.y_stride + group * width;
  V sum = hn::Zero(F());
  for (int64_t j = 0; j < width; j += kWidth) {
    const V x = get(a.x, a.x_type, from + j, width - j);
    sum = hn::MulAdd(x, x, sum);
  }
  const float mean = static_cast<float>(sum_lanes(sum) / static_cast<double>(width));
  const float inverse = 1.0f / std::sqrt(mean + a.epsilon);
  if (a.inverse_rms != nullptr) a.inverse_rms[i] = inverse;
  const V scale = hn::Set(F(), inverse);
  for (int64_t j = 0; j < width; j += kWidth) {
    const V x = get(a.x, a.x_type, from + j, width - j);
    const V weight = get(a.weight, DType::kF32, j, width - j);
    put(hn::Mul(hn::Mul(x, scale), weight), a.y, a.y_type, to + j, width - j);
  }
}

void norm_rows(const RmsNorm& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) norm_row(a, i);
}

// dx = (dy * w - n * mean(dy * w * n)) * inverse with n = x * inverse; dweight += dy * n.
void norm_backward_row(const RmsNormBackward& a, int64_t i, float* sums) {
  const int64_t width = a.width, token = i / a.groups, group = i % a.groups;
  const int64_t at_x = token * a.x_stride + group * width, at_dy = token * a.dy_stride + group * width;
  const int64_t at_dx = token * a.dx_stride + group * width;
  const V inverse = hn::Set(F(), a.inverse_rms[i]);
  V dot = hn::Zero(F());
  for (int64_t j = 0; j < width; j += kWidth) {
    const int64_t left = width - j;
    const V normed = hn::Mul(get(a.x, a.x_type, at_x + j, left), inverse);
    const V dy = get(a.dy, a.dy_type, at_dy + j, left);
    dot = hn::MulAdd(hn::Mul(dy, get(a.weight, DType::kF32, j, left)), normed, dot);
    put(hn::MulAdd(dy, normed, get(sums, DType::kF32, j, left)), sums, DType::kF32, j, left);
  }
  const V mean = hn::Set(F(), static_cast<float>(sum_lanes(dot) / static_cast<double>(width)));
  for (int64_t j = 0; j < width; j += kWidth) {
    const int64_t left = width - j;
    const V normed = hn::Mul(get(a.x, a.x_type, at_x + j, left), inverse);
    const V scaled = hn::Mul(get(a.dy, a.dy_type, at_dy + j, left), get(a.weight, DType::kF32, j, left));
    V value = hn::Mul(hn::NegMulAdd(normed, mean, scaled), inverse);
    if (a.accumulate) value = hn::Add(value, get(a.dx, a.dx_type, at_dx + j, left));
    put(value, a.dx, a.dx_type, at_dx + j, left);
  }
}

void norm_backward_rows(const RmsNormBackward& a, int64_t begin, int64_t end, float* sums) {
  for (int64_t i = begin; i < end; ++i) norm_backward_row(a, i, sums);
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_backward_rows);

Status rms_norm(const RmsNorm& a) {
  parallel_ranges(a.tokens * a.groups, grain_of(a.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(norm_rows)(a, begin, end);
  });
  return {};
}

// Each thread adds up dweight for rows of its own; the parts follow in the order of the threads.
Status rms_norm_backward(const RmsNormBackward& a) {
  const int64_t count = a.tokens * a.groups, pieces = count / grain_of(a.width) + 1;
  const int team = static_cast<int>(pieces < threads() ? pieces : threads());
  for (int64_t i = 0; i < static_cast<int64_t>(team) * a.width; ++i) a.scratch[i] = 0;
  parallel_for(team, 1, [&](int64_t part) {
    HWY_DYNAMIC_DISPATCH(norm_backward_rows)
    (a, count * part / team, count * (part + 1) / team, a.scratch + part * a.width);
  });
  for (int part = 0; part < team; ++part) {
    for (int j = 0; j < a.width; ++j) a.dweight[j] += a.scratch[static_cast<int64_t>(part) * a.width + j];
  }
  return {};
}

}  // namespace ssrl::ops::host
#endif
