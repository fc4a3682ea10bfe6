// Rotary position embedding, in place.
#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {

Status rope(const Rope& a) {
  const int half = a.head_dim / 2;
  parallel_for(a.tokens, 16, [&](int64_t token) {
    const float* cosines = a.cosines + static_cast<int64_t>(a.positions[token]) * half;
    const float* sines = a.sines + static_cast<int64_t>(a.positions[token]) * half;
    for (int head = 0; head < a.heads; ++head) {
      const int64_t base = token * a.stride + static_cast<int64_t>(head) * a.head_dim;
      for (int i = 0; i < half; ++i) {
        const float first = load(a.x, a.type, base + i), second = load(a.x, a.type, base + half + i);
        const float sine = a.backward ? -sines[i] : sines[i];
        store(a.x, a.type, base + i, first * cosines[i] - second * sine);
        store(a.x, a.type, base + half + i, second * cosines[i] + first * sine);
      }
    }
  });
  return {};
}

}  // namespace ssrl::ops::host
