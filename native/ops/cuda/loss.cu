// Rows of logits to log-probs, to the clipped policy-gradient (or SFT) loss, and to the loss's gradient: a
// block per row, in the arithmetic of log_softmax_row.
#include "ops/cuda/loss.h"

#include "ops/cuda/block.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = kRowThreads, kCopyThreads = 128;

__global__ void __launch_bounds__(kThreads) score_rows(LogProbRows a) {
  BlockMemory& memory = shared_memory<BlockMemory>();
  const int64_t row = block_x();
  const float* logits = a.logits + row * a.vocabulary;
  const float inverse = 1.0f / a.temperature;
  const RowSoftmax softmax = log_softmax_row<kThreads>(memory, logits, a.vocabulary, inverse);
  if (thread_index() != 0) return;
  a.logprobs[row] = (logits[a.targets[row]] * inverse - softmax.maximum) - softmax.log_sum_exp;
  a.entropies[row] = softmax.entropy;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) differentiate_rows(LossRows a) {
  BlockMemory& memory = shared_memory<BlockMemory>();
  const int64_t i = block_x(), row = a.rows[i], base = i * a.vocabulary;
  const float* logits = a.logits + base;
  const float inverse = 1.0f / a.loss.options.temperature;
  const RowSoftmax softmax = log_softmax_row<kThreads>(memory, logits, a.vocabulary, inverse);
  const int32_t target = a.loss.targets[i];
  const float logprob = (logits[target] * inverse - softmax.maximum) - softmax.log_sum_exp;
  const ops::RowLoss loss = ops::row_loss(a.loss, i, logprob);
  if (thread_index() == 0) {
    a.loss.logprobs[row] = logprob;
    if (a.loss.entropies != nullptr) a.loss.entropies[row] = softmax.entropy;
    a.results[i] = {loss, softmax.entropy, a.loss.weights[i]};
  }
  if (a.dlogits == nullptr) return;
  // The gradient may replace the logits, and all have read the target's.
  sync_threads();
  const float factor = loss.derivative * inverse;
  for (int64_t j = thread_index(); j < a.vocabulary; j += kThreads) {
    const float probability = exponential((logits[j] * inverse - softmax.maximum) - softmax.log_sum_exp);
    const float value = j == target ? factor * (1.0f - probability) : -factor * probability;
    static_cast<T*>(a.dlogits)[base + j] = from_float<T>(value);
  }
}

__global__ void __launch_bounds__(kCopyThreads)
    put_pieces(const float* from, const int64_t* rows, int64_t count, int64_t width, float* to) {
  const int64_t pieces = pieces_of(width, 8), items = count * pieces;
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t i = item / pieces, j = item % pieces * 8;
    store_eight(to + rows[i] * width, j, width, load_eight(from + i * width, j, width));
  }
}

}  // namespace

int64_t vocabulary_chunk(const ops::PackedWeight& weight) {
  // A chunk reads the weight twice and its f32 gradient, and writes that: 12 bytes an element for 6
  // operations a row, so that fewer than 600 rows would leave an H100's tensor cores waiting for memory.
  constexpr int64_t kBudget = int64_t{256} << 20, kMostRows = 1024;  // bytes of f32 logits
  const int64_t rows = kBudget / (weight.outputs() * 4) / ops::kRowTile * ops::kRowTile;
  return rows < ops::kRowTile ? ops::kRowTile : rows > kMostRows ? kMostRows : rows;
}

Status log_prob_rows(const LogProbRows& a, Stream stream) {
  if (a.rows == 0) return {};
  return launch<score_rows>({{static_cast<unsigned>(a.rows)}, kThreads, sizeof(BlockMemory)}, stream, a);
}

Status loss_rows(const LossRows& a, DType compute, Stream stream) {
  const LaunchShape shape{{static_cast<unsigned>(a.count)}, kThreads, sizeof(BlockMemory)};
  return with_type(compute,
                   [&](auto type) { return launch<differentiate_rows<decltype(type)>>(shape, stream, a); });
}

Status put_rows(const float* from, const int64_t* rows, int64_t count, int64_t width, float* to,
                Stream stream) {
  const int64_t items = count * pieces_of(width, 8);
  return launch<put_pieces>(grid_for(items, kCopyThreads), stream, from, rows, count, width, to);
}

}  // namespace ssrl::cuda
