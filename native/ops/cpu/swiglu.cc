// silu(gate) * up, forward and backward.
#include <cmath>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {

Status swiglu(const Swiglu& a) {
  parallel_for(a.tokens, 4, [&](int64_t token) {
    for (int64_t j = 0; j < a.width; ++j) {
      const float gate = load(a.gate_up, a.type, token * 2 * a.width + j);
      const float up = load(a.gate_up, a.type, token * 2 * a.width + a.width + j);
      store(a.y, a.type, token * a.width + j, gate / (1.0f + std::exp(-gate)) * up);
    }
  });
  return {};
}

Status swiglu_backward(const SwigluBackward& a) {
  parallel_for(a.tokens, 4, [&](int64_t token) {
    for (int64_t j = 0; j < a.width; ++j) {
      const int64_t at_gate = token * 2 * a.width + j, at_up = at_gate + a.width;
      const float gate = load(a.gate_up, a.type, at_gate), up = load(a.gate_up, a.type, at_up);
      const float dy = load(a.dy, a.type, token * a.width + j);
      const float sigmoid = 1.0f / (1.0f + std::exp(-gate));
      store(a.dgate_up, a.type, at_gate, dy * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
      store(a.dgate_up, a.type, at_up, dy * gate * sigmoid);
    }
  });
  return {};
}

}  // namespace ssrl::ops::host
