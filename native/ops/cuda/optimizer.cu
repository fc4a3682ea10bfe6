// AdamW, bit for bit as on the CPU, and the sum of squares for the global norm.
#include <cmath>

#include "ops/cuda/kernels.h"
#include "ops/optimizer.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads) adamw_step(ops::AdamW a, ops::AdamWFactors f, int64_t items) {
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t j = item * 8;
    const Eight gradients = load_eight(a.gradient, j, a.count);
    Eight weight = load_eight(a.weight, j, a.count);
    Eight first = load_eight(a.first_moment, j, a.count), second = load_eight(a.second_moment, j, a.count);
    for (int i = 0; i < 8; ++i) {
      const float gradient = gradients.value[i] * a.gradient_scale;
      first.value[i] = fmaf(f.beta1, first.value[i], f.complement1 * gradient);
      second.value[i] = fmaf(f.beta2, second.value[i], f.complement2 * (gradient * gradient));
      const float denominator = square_root(second.value[i]) / f.root_correction + f.epsilon;
      const float change = f.step_size * (first.value[i] / denominator);
      weight.value[i] = weight.value[i] * f.kept - change;
    }
    store_eight(a.first_moment, j, a.count, first);
    store_eight(a.second_moment, j, a.count, second);
    store_eight(a.weight, j, a.count, weight);
  }
}

// A warp per part; what is whose depends on the count only.
__global__ void __launch_bounds__(kThreads) square_parts(const float* x, int64_t count, double* parts) {
  const int64_t part = static_cast<int64_t>(block_x()) * kWarps + warp_index();
  const int64_t block = pieces_of(pieces_of(count, kSquareParts), 8) * 8;
  const int64_t end = (part + 1) * block < count ? (part + 1) * block : count;
  double sum = 0;
  for (int64_t j = part * block + lane_index() * 8; j < end; j += 32 * 8) {
    const Eight values = load_eight(x, j, end);
    for (int i = 0; i < 8; ++i) sum += static_cast<double>(values.value[i]) * values.value[i];
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) parts[part] = sum;
}

__global__ void __launch_bounds__(32) add_square_parts(double* parts) {
  double sum = 0;
  for (int part = lane_index(); part < kSquareParts; part += 32) sum += parts[part];
  sum = warp_sum(sum);
  if (lane_index() == 0) parts[kSquareParts] = sum;
}

}  // namespace

Status adamw(const ops::AdamW& a, Stream stream) {
  const int64_t items = pieces_of(a.count, 8);
  if (items == 0) return {};
  return launch<adamw_step>(grid_for(items, kThreads), stream, a, ops::adamw_factors(a), items);
}

Status sum_of_squares(const float* x, int64_t count, double* parts, Stream stream) {
  SSRL_RETURN_IF_ERROR(launch<square_parts>({{kSquareParts / kWarps}, kThreads}, stream, x, count, parts));
  return launch<add_square_parts>({{1}, 32}, stream, parts);
}

}  // namespace ssrl::cuda
