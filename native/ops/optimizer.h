// What one AdamW step multiplies with, the same on every device.
#pragma once

#include <cmath>

#include "ops/ops.h"

namespace ssrl::ops {

struct AdamWFactors {
  float step_size;  // learning rate / (1 - beta1^step)
  float kept;       // 1 - learning rate * weight decay
  float beta1, complement1;
  float beta2, complement2;
  float root_correction;  // sqrt(1 - beta2^step)
  float epsilon;
};

inline AdamWFactors adamw_factors(const AdamW& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  return {
      .step_size = static_cast<float>(a.learning_rate / correction1),
      .kept = static_cast<float>(1.0 - a.learning_rate * a.weight_decay),
      .beta1 = static_cast<float>(a.beta1),
      .complement1 = static_cast<float>(1.0 - a.beta1),
      .beta2 = static_cast<float>(a.beta2),
      .complement2 = static_cast<float>(1.0 - a.beta2),
      .root_correction = static_cast<float>(std::sqrt(correction2)),
      .epsilon = static_cast<float>(a.epsilon),
  };
}

}  // namespace ssrl::ops
