// AdamW (Loshchilov & Hutter, arXiv:1711.05101, as PyTorch orders it) and the sum of squares for the global
// norm.
#include <cmath>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {

Status adamw(const AdamW& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  const float step_size = static_cast<float>(a.learning_rate / correction1);
  const float root_correction = static_cast<float>(std::sqrt(correction2));
  const float decay = static_cast<float>(a.learning_rate * a.weight_decay);
  const float beta1 = static_cast<float>(a.beta1), complement1 = static_cast<float>(1.0 - a.beta1);
  const float beta2 = static_cast<float>(a.beta2), complement2 = static_cast<float>(1.0 - a.beta2);
  const float epsilon = static_cast<float>(a.epsilon);
  const int64_t block = 16384;
  parallel_for((a.count + block - 1) / block, 1, [&](int64_t piece) {
    const int64_t end = (piece + 1) * block < a.count ? (piece + 1) * block : a.count;
    for (int64_t i = piece * block; i < end; ++i) {
      const float gradient = a.gradient[i] * a.gradient_scale;
      const float first = beta1 * a.first_moment[i] + complement1 * gradient;
      const float second = beta2 * a.second_moment[i] + complement2 * (gradient * gradient);
      a.first_moment[i] = first;
      a.second_moment[i] = second;
      // Decay and step are added first: the weight is rounded once.
      a.weight[i] -=
          decay * a.weight[i] + step_size * (first / (std::sqrt(second) / root_correction + epsilon));
    }
  });
  return {};
}

Status sum_of_squares(const float* x, int64_t count, double* out) {
  constexpr int64_t kParts = 1024;
  const int64_t block = count / kParts + 1;
  double parts[kParts] = {};
  parallel_for(kParts, 16, [&](int64_t part) {
    const int64_t end = (part + 1) * block < count ? (part + 1) * block : count;
    for (int64_t i = part * block; i < end; ++i) parts[part] += static_cast<double>(x[i]) * x[i];
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  *out = sum;
  return {};
}

}  // namespace ssrl::ops::host
