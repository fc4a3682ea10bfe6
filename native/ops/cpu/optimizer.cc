// AdamW (Loshchilov & Hutter, arXiv:1711.05101, as PyTorch orders it) and the sum of squares for the global
// norm.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/optimizer.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "ops/cpu/kernels.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/simd-inl.h"
#include "ops/optimizer.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

void adamw_range(const AdamW& a, const AdamWFactors& f, int64_t begin, int64_t end) {
  const V scale = hn::Set(F(), a.gradient_scale), kept = hn::Set(F(), f.kept);
  const V beta1 = hn::Set(F(), f.beta1), complement1 = hn::Set(F(), f.complement1);
  const V beta2 = hn::Set(F(), f.beta2), complement2 = hn::Set(F(), f.complement2);
  const V root = hn::Set(F(), f.root_correction), epsilon = hn::Set(F(), f.epsilon);
  const V step = hn::Set(F(), f.step_size);
  for (int64_t i = begin; i < end; i += kWidth) {
    const int64_t left = end - i;
    const V gradient = hn::Mul(get(a.gradient, DType::kF32, i, left), scale);
    const V weight = get(a.weight, DType::kF32, i, left);
    const V first =
        hn::MulAdd(beta1, get(a.first_moment, DType::kF32, i, left), hn::Mul(complement1, gradient));
    const V second = hn::MulAdd(beta2, get(a.second_moment, DType::kF32, i, left),
                                hn::Mul(complement2, hn::Mul(gradient, gradient)));
    const V denominator = hn::Add(hn::Div(hn::Sqrt(second), root), epsilon);
    // Decay is rounded before the step, as in PyTorch: else weights above 1 end in other bits.
    const V change = hn::Mul(step, hn::Div(first, denominator));
    put(first, a.first_moment, DType::kF32, i, left);
    put(second, a.second_moment, DType::kF32, i, left);
    put(hn::Sub(hn::Mul(weight, kept), change), a.weight, DType::kF32, i, left);
  }
}

double squares_range(const float* x, int64_t begin, int64_t end) {
  const hn::RebindToFloat<hn::Repartition<int64_t, F>> d;
  const hn::Rebind<float, decltype(d)> f;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = begin;
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    const auto x0 = hn::PromoteTo(d, hn::LoadU(f, x + i)), x1 = hn::PromoteTo(d, hn::LoadU(f, x + i + lanes));
    sum0 = hn::MulAdd(x0, x0, sum0);
    sum1 = hn::MulAdd(x1, x1, sum1);
  }
  alignas(64) double parts[kWidth];
  hn::StoreU(hn::Add(sum0, sum1), d, parts);
  double sum = 0;
  for (int64_t lane = 0; lane < lanes; ++lane) sum += parts[lane];
  for (; i < end; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(adamw_range);
HWY_EXPORT(squares_range);

Status adamw(const AdamW& a) {
  const AdamWFactors factors = adamw_factors(a);
  if (a.packed != nullptr) {
    const int64_t inputs = a.packed->inputs();
    return repack_prepared(a.weight, a.packed, [&](int64_t first, int64_t count) {
      HWY_DYNAMIC_DISPATCH(adamw_range)(a, factors, first * inputs, (first + count) * inputs);
    });
  }
  parallel_ranges(a.count, 16384, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(a, factors, begin, end);
  });
  return {};
}

Status sum_of_squares(const float* x, int64_t count, double* out) {
  constexpr int64_t kParts = 1024;
  const int64_t block = count / kParts + 1;
  double parts[kParts] = {};
  parallel_for(kParts, block < 1024 ? kParts : 16, [&](int64_t part) {
    const int64_t end = (part + 1) * block < count ? (part + 1) * block : count;
    if (part * block < end) parts[part] = HWY_DYNAMIC_DISPATCH(squares_range)(x, part * block, end);
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  *out = sum;
  return {};
}

}  // namespace ssrl::ops::host
#endif
