// RMS norm, forward and backward: one warp per row, so that a row is summed in an order that depends on its
// width only and nothing needs a barrier.
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int64_t kStep = 32 * 8;  // elements that a warp takes at a time

template <typename X, typename Y>
__global__ void __launch_bounds__(kThreads) norm_rows(ops::RmsNorm a) {
  const int64_t row = static_cast<int64_t>(block_x()) * kWarps + warp_index();
  if (row >= a.tokens * a.groups) return;
  const int64_t token = row / a.groups, group = row % a.groups, width = a.width;
  const X* x = static_cast<const X*>(a.x) + token * a.x_stride + group * width;
  Y* y = static_cast<Y*>(a.y) + token * a.y_stride + group * width;
  double sum = 0;
  for (int64_t j = lane_index() * 8; j < width; j += kStep) {
    const Eight values = load_eight(x, j, width);
    float part = 0;
    for (int i = 0; i < 8; ++i) part = fmaf(values.value[i], values.value[i], part);
    sum += part;
  }
  const float mean = static_cast<float>(warp_sum(sum) / static_cast<double>(width));
  const float inverse = 1.0f / square_root(mean + a.epsilon);
  if (a.inverse_rms != nullptr && lane_index() == 0) a.inverse_rms[row] = inverse;
  for (int64_t j = lane_index() * 8; j < width; j += kStep) {
    Eight values = load_eight(x, j, width);
    const Eight weight = load_eight(a.weight, j, width);
    for (int i = 0; i < 8; ++i) values.value[i] = values.value[i] * inverse * weight.value[i];
    store_eight(y, j, width, values);
  }
}

template <typename DY, typename X, typename DX>
__device__ void norm_backward_row(const ops::RmsNormBackward& a, int64_t row, float* dweight) {
  const int64_t token = row / a.groups, column = row % a.groups * a.width, width = a.width;
  const X* x = static_cast<const X*>(a.x) + token * a.x_stride + column;
  const DY* dy = static_cast<const DY*>(a.dy) + token * a.dy_stride + column;
  DX* dx = static_cast<DX*>(a.dx) + token * a.dx_stride + column;
  const float inverse = a.inverse_rms[row];
  double sum = 0;
  for (int64_t j = lane_index() * 8; j < width; j += kStep) {
    const Eight value = load_eight(x, j, width), gradient = load_eight(dy, j, width);
    const Eight weight = load_eight(a.weight, j, width);
    Eight total = load_eight(dweight, j, width);
    float part = 0;
    for (int i = 0; i < 8; ++i) {
      const float normed = value.value[i] * inverse;
      part = fmaf(gradient.value[i] * weight.value[i], normed, part);
      total.value[i] = fmaf(gradient.value[i], normed, total.value[i]);
    }
    store_eight(dweight, j, width, total);
    sum += part;
  }
  const float mean = static_cast<float>(warp_sum(sum) / static_cast<double>(width));
  for (int64_t j = lane_index() * 8; j < width; j += kStep) {
    const Eight value = load_eight(x, j, width), gradient = load_eight(dy, j, width);
    const Eight weight = load_eight(a.weight, j, width);
    Eight out{};
    if (a.accumulate) out = load_eight(dx, j, width);
    for (int i = 0; i < 8; ++i) {
      const float normed = value.value[i] * inverse;
      out.value[i] += fmaf(-normed, mean, gradient.value[i] * weight.value[i]) * inverse;
    }
    store_eight(dx, j, width, out);
  }
}

// Each warp adds up dweight for rows of its own in its part of the scratch, which only it sees. A lane comes
// back to the elements that it wrote itself.
template <typename DY, typename X, typename DX>
__global__ void __launch_bounds__(kThreads) norm_backward_rows(ops::RmsNormBackward a, int parts) {
  const int64_t part = static_cast<int64_t>(block_x()) * kWarps + warp_index();
  if (part >= parts) return;
  const int64_t count = a.tokens * a.groups;
  float* dweight = a.scratch + part * a.width;
  for (int64_t j = lane_index() * 8; j < a.width; j += kStep) store_eight(dweight, j, a.width, Eight{});
  for (int64_t row = count * part / parts; row < count * (part + 1) / parts; ++row) {
    norm_backward_row<DY, X, DX>(a, row, dweight);
  }
}

}  // namespace

Status rms_norm(const ops::RmsNorm& a, Stream stream) {
  const int64_t rows = a.tokens * a.groups;
  if (rows == 0) return {};
  const LaunchShape shape{{static_cast<unsigned>(pieces_of(rows, kWarps))}, kThreads};
  return with_type(a.x_type, [&](auto x) {
    return with_type(a.y_type,
                     [&](auto y) { return launch<norm_rows<decltype(x), decltype(y)>>(shape, stream, a); });
  });
}

Status rms_norm_backward(const ops::RmsNormBackward& a, Stream stream) {
  const int64_t rows = a.tokens * a.groups;
  if (rows == 0) return {};
  const int parts = static_cast<int>(rows < kNormParts ? rows : kNormParts);
  const LaunchShape shape{{static_cast<unsigned>(pieces_of(parts, kWarps))}, kThreads};
  SSRL_RETURN_IF_ERROR(with_type(a.dy_type, [&](auto dy) {
    return with_type(a.x_type, [&](auto x) {
      return with_type(a.dx_type, [&](auto dx) {
        return launch<norm_backward_rows<decltype(dy), decltype(x), decltype(dx)>>(shape, stream, a, parts);
      });
    });
  }));
  return add_column_sums(a.scratch, DType::kF32, parts, a.width, a.dweight, stream);
}

}  // namespace ssrl::cuda
