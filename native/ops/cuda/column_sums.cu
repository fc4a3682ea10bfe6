// Sums of columns, for the gradients of biases and of norms: a warp takes every so many rows of 32
// neighbouring columns, and the warps' sums are added in order.
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {
namespace {

constexpr int kColumns = 32, kMostWarps = 16;

struct ColumnMemory {
  Shared<float, kMostWarps * kColumns> sums;
};

template <typename T>
__global__ void __launch_bounds__(32 * kMostWarps)
    add_columns(const T* x, int64_t rows, int64_t width, float* out) {
  ColumnMemory& memory = shared_memory<ColumnMemory>();
  const int64_t column = static_cast<int64_t>(block_x()) * kColumns + lane_index();
  const int warps = block_threads() / 32;
  float sum = 0;
  if (column < width) {
    for (int64_t row = warp_index(); row < rows; row += warps) sum += to_float(x[row * width + column]);
  }
  memory.sums.store(thread_index(), sum);
  sync_threads();
  if (warp_index() != 0 || column >= width) return;
  for (int warp = 1; warp < warps; ++warp) sum += memory.sums.load(warp * kColumns + lane_index());
  out[column] += sum;
}

}  // namespace

Status add_column_sums(const void* x, DType type, int64_t rows, int64_t width, float* out, Stream stream) {
  if (rows == 0 || width == 0) return {};
  const int64_t warps = pieces_of(rows, 8);
  const LaunchShape shape{{static_cast<unsigned>(pieces_of(width, kColumns))},
                          32 * static_cast<int>(warps < kMostWarps ? warps : kMostWarps),
                          sizeof(ColumnMemory)};
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    return launch<add_columns<T>>(shape, stream, static_cast<const T*>(x), rows, width, out);
  });
}

}  // namespace ssrl::cuda
