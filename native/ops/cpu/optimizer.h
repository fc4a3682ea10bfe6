// What one AdamW step multiplies with.
#pragma once

namespace ssrl::ops::host {

struct AdamWFactors {
  float step_size;  // learning rate / (1 - beta1^step)
  float kept;       // 1 - learning rate * weight decay
  float beta1, complement1;
  float beta2, complement2;
  float root_correction;  // sqrt(1 - beta2^step)
  float epsilon;
};

}  // namespace ssrl::ops::host
