// silu(gate) * up, forward and backward.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/swiglu.cc"
#include <hwy/foreach_target.h>

#include <hwy/contrib/math/math-inl.h>

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

HWY_INLINE V activation(V gate, V sigmoid_of_gate, V up) {
  return hn::Mul(hn::Mul(gate, sigmoid_of_gate), up);
}

HWY_INLINE V sigmoid(V x) {
  const V one = hn::Set(F(), 1.0f), limit = hn::Set(F(), -88.0f);
  const V exponential = hn::Exp(F(), hn::Neg(hn::Max(x, limit)));
  // Below the limit it is 0, and not what Exp gives past its range; a NaN comes back through the product with
  // x.
  return hn::IfThenElse(hn::Lt(x, limit), hn::Zero(F()), hn::Div(one, hn::Add(one, exponential)));
}

void swiglu_tokens(const Swiglu& a, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t j = 0; j < a.width; j += kWidth) {
      const int64_t left = a.width - j, at_gate = token * 2 * a.width + j;
      const V gate = get(a.gate_up, a.type, at_gate, left),
              up = get(a.gate_up, a.type, at_gate + a.width, left);
      put(activation(gate, sigmoid(gate), up), a.y, a.type, token * a.width + j, left);
    }
  }
}

void swiglu_backward_tokens(const SwigluBackward& a, int64_t begin, int64_t end) {
  const V one = hn::Set(F(), 1.0f);
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t j = 0; j < a.width; j += kWidth) {
      const int64_t left = a.width - j, at_gate = token * 2 * a.width + j, at_up = at_gate + a.width;
      const V gate = get(a.gate_up, a.type, at_gate, left), up = get(a.gate_up, a.type, at_up, left);
      const V dy = get(a.dy, a.type, token * a.width + j, left), s = sigmoid(gate);
      const V slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
      put(hn::Mul(hn::Mul(dy, up), slope), a.dgate_up, a.type, at_gate, left);
      put(hn::Mul(dy, hn::Mul(gate, s)), a.dgate_up, a.type, at_up, left);
      put(activation(gate, s, up), a.y, a.type, token * a.width + j, left);
    }
  }
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(swiglu_tokens);
HWY_EXPORT(swiglu_backward_tokens);

Status swiglu(const Swiglu& a) {
  parallel_ranges(a.tokens, grain_of(4 * a.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_tokens)(a, begin, end);
  });
  return {};
}

Status swiglu_backward(const SwigluBackward& a) {
  parallel_ranges(a.tokens, grain_of(7 * a.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_backward_tokens)(a, begin, end);
  });
  return {};
}

}  // namespace ssrl::ops::host
#endif
