// Rotary position embedding, in place.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rope.cc"
#include <hwy/foreach_target.h>

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

void rope_tokens(const Rope& a, int64_t begin, int64_t end) {
  const int64_t half = a.head_dim / 2;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t row = static_cast<int64_t>(a.positions[token]) * half;
    for (int64_t i = 0; i < half; i += kWidth) {
      const int64_t left = half - i;
      const V cosine = get(a.cosines, DType::kF32, row + i, left);
      const V forward = get(a.sines, DType::kF32, row + i, left);
      const V sine = a.backward ? hn::Neg(forward) : forward;
      for (int head = 0; head < a.heads; ++head) {
        const int64_t at_first = token * a.stride + static_cast<int64_t>(head) * a.head_dim + i;
        const V first = get(a.x, a.type, at_first, left), second = get(a.x, a.type, at_first + half, left);
        put(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), a.x, a.type, at_first, left);
        put(hn::MulAdd(first, sine, hn::Mul(second, cosine)), a.x, a.type, at_first + half, left);
      }
    }
  }
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(rope_tokens);

Status rope(const Rope& a) {
  const int64_t grain = grain_of(static_cast<int64_t>(a.heads) * a.head_dim);
  parallel_ranges(a.tokens, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rope_tokens)(a, begin, end);
  });
  return {};
}

}  // namespace ssrl::ops::host
#endif
