// RMS norm, forward and backward. A row is summed in an order that depends on its width only.
#include <cmath>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {

Status rms_norm(const RmsNorm& a) {
  const int64_t count = a.tokens * a.groups;
  parallel_for(count, 16, [&](int64_t i) {
    const int64_t token = i / a.groups, group = i % a.groups;
    const int64_t from = token * a.x_stride + group * a.width, to = token * a.y_stride + group * a.width;
    float sum = 0;
    for (int j = 0; j < a.width; ++j) {
      const float value = load(a.x, a.x_type, from + j);
      sum += value * value;
    }
    const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(a.width) + a.epsilon);
    if (a.inverse_rms != nullptr) a.inverse_rms[i] = inverse;
    for (int j = 0; j < a.width; ++j) {
      store(a.y, a.y_type, to + j, load(a.x, a.x_type, from + j) * inverse * a.weight[j]);
    }
  });
  return {};
}

Status rms_norm_backward(const RmsNormBackward& a) {
  const int64_t count = a.tokens * a.groups;
  const int team = static_cast<int>(count < threads() ? (count < 1 ? 1 : count) : threads());
  for (int64_t i = 0; i < static_cast<int64_t>(team) * a.width; ++i) a.scratch[i] = 0;
#pragma omp parallel for num_threads(team) schedule(static, 1)
  for (int part = 0; part < team; ++part) {
    float* sums = a.scratch + static_cast<int64_t>(part) * a.width;
    for (int64_t i = count * part / team; i < count * (part + 1) / team; ++i) {
      const int64_t token = i / a.groups, group = i % a.groups;
      const int64_t x = token * a.x_stride + group * a.width, dy = token * a.dy_stride + group * a.width;
      const int64_t dx = token * a.dx_stride + group * a.width;
      const float inverse = a.inverse_rms[i];
      float dot = 0;
      for (int j = 0; j < a.width; ++j) {
        dot += load(a.dy, a.dy_type, dy + j) * a.weight[j] * (load(a.x, a.x_type, x + j) * inverse);
      }
      dot /= static_cast<float>(a.width);
      for (int j = 0; j < a.width; ++j) {
        const float normed = load(a.x, a.x_type, x + j) * inverse, dy_j = load(a.dy, a.dy_type, dy + j);
        const float value = (dy_j * a.weight[j] - normed * dot) * inverse;
        sums[j] += dy_j * normed;
        store(a.dx, a.dx_type, dx + j, a.accumulate ? load(a.dx, a.dx_type, dx + j) + value : value);
      }
    }
  }
  for (int part = 0; part < team; ++part) {
    for (int j = 0; j < a.width; ++j) a.dweight[j] += a.scratch[static_cast<int64_t>(part) * a.width + j];
  }
  return {};
}

}  // namespace ssrl::ops::host
