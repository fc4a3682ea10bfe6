// Vectors of floats over memory of either type, once per instruction set, for the row-wise kernels.
//
// Included by Highway's foreach_target, so the guard toggles.
#if defined(SSRL_OPS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SSRL_OPS_CPU_SIMD_INL_H_
#undef SSRL_OPS_CPU_SIMD_INL_H_
#else
#define SSRL_OPS_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "ops/ops.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using H = hn::Rebind<uint16_t, F>;
using V = hn::Vec<F>;
constexpr int64_t kWidth = hn::MaxLanes(F());

HWY_INLINE V widen(hn::Vec<H> half) {
  return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U(), half)));
}

// To nearest even, NaN kept quiet, as to_bf16.
HWY_INLINE hn::Vec<H> narrow(V value) {
  const U u;
  const auto bits = hn::BitCast(u, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(u, 0x7fff)), odd);
  const auto quiet = hn::Or(bits, hn::Set(u, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(value)), quiet, rounded);
  return hn::TruncateTo(H(), hn::ShiftRight<16>(chosen));
}

HWY_INLINE V get(const float* from) {
  return hn::LoadU(F(), from);
}
HWY_INLINE V get(const uint16_t* from) {
  return widen(hn::LoadU(H(), from));
}
HWY_INLINE void put(V value, float* to) {
  hn::StoreU(value, F(), to);
}
HWY_INLINE void put(V value, uint16_t* to) {
  hn::StoreU(narrow(value), H(), to);
}

// The first `count` lanes; the others are zero, and are not written.
template <typename T>
HWY_INLINE V get_part(const T* from, int64_t count) {
  alignas(64) T lanes[kWidth] = {};
  std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
  return get(lanes);
}
template <typename T>
HWY_INLINE void put_part(V value, T* to, int64_t count) {
  alignas(64) T lanes[kWidth];
  put(value, lanes);
  std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
}

// `count` lanes from element `index` of memory of either type; a whole vector when count is kWidth or more.
HWY_INLINE V get(const void* base, DType type, int64_t index, int64_t count) {
  if (type == DType::kF32) {
    const float* from = static_cast<const float*>(base) + index;
    return count >= kWidth ? get(from) : get_part(from, count);
  }
  const uint16_t* from = static_cast<const uint16_t*>(base) + index;
  return count >= kWidth ? get(from) : get_part(from, count);
}
HWY_INLINE void put(V value, void* base, DType type, int64_t index, int64_t count) {
  if (type == DType::kF32) {
    float* to = static_cast<float*>(base) + index;
    return count >= kWidth ? put(value, to) : put_part(value, to, count);
  }
  uint16_t* to = static_cast<uint16_t*>(base) + index;
  return count >= kWidth ? put(value, to) : put_part(value, to, count);
}

// Lane by lane in double.
HWY_INLINE double sum_lanes(V value) {
  alignas(64) float lanes[kWidth];
  put(value, lanes);
  double sum = 0;
  for (int64_t i = 0; i < kWidth; ++i) sum += lanes[i];
  return sum;
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
