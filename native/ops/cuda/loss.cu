// Rows of logits to log-probs, to the clipped policy-gradient (or SFT) loss, and to the loss's gradient: a
// block per row, in the arithmetic of log_softmax_row.
#include "ops/cuda/loss.h"

#include "ops/cuda/block.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 256, kCopyThreads = 128;

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

// One warp: the order of the rows is kept.
__global__ void __launch_bounds__(32) choose_rows(SelectRows a) {
  int64_t count = 0;
  for (int64_t begin = a.begin; begin < a.end; begin += 32) {
    const int64_t row = begin + lane_index();
    const bool inside = row < a.end, counts = inside && a.loss.weights[row] != 0;
    const uint32_t votes = ballot(counts);
    uint32_t before = votes & ((1u << lane_index()) - 1u);
    int64_t place = count;
    for (; before != 0; before &= before - 1) ++place;
    if (counts) a.rows[place] = row;
    for (uint32_t left = votes; left != 0; left &= left - 1) ++count;
    if (!inside || counts) continue;
    a.loss.logprobs[row] = 0;
    if (a.loss.entropies != nullptr) a.loss.entropies[row] = 0;
    if (a.loss.dhidden == nullptr) continue;
    for (int64_t j = 0; j < a.inputs; ++j) a.loss.dhidden[row * a.inputs + j] = 0;
  }
  if (lane_index() == 0) *a.count = count;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) differentiate_rows(LossRows a) {
  BlockMemory& memory = shared_memory<BlockMemory>();
  const int64_t row = a.rows[block_x()], base = static_cast<int64_t>(block_x()) * a.vocabulary;
  const float* logits = a.logits + base;
  const float inverse = 1.0f / a.loss.options.temperature;
  const RowSoftmax softmax = log_softmax_row<kThreads>(memory, logits, a.vocabulary, inverse);
  const int32_t target = a.loss.targets[row];
  const float logprob = (logits[target] * inverse - softmax.maximum) - softmax.log_sum_exp;
  const ops::RowLoss loss = ops::row_loss(a.loss, row, logprob);
  if (thread_index() == 0) {
    a.loss.logprobs[row] = logprob;
    if (a.loss.entropies != nullptr) a.loss.entropies[row] = softmax.entropy;
    a.results[block_x()] = {loss, softmax.entropy, a.loss.weights[row]};
  }
  if (a.dlogits == nullptr) return;
  // The gradient may replace the logits, and all have read the target's.
  sync_threads();
  const float factor = loss.derivative * inverse;
  for (int64_t i = thread_index(); i < a.vocabulary; i += kThreads) {
    const float probability = exponential((logits[i] * inverse - softmax.maximum) - softmax.log_sum_exp);
    const float value = i == target ? factor * (1.0f - probability) : -factor * probability;
    static_cast<T*>(a.dlogits)[base + i] = from_float<T>(value);
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
  constexpr int64_t kBudget = int64_t{64} << 20;  // bytes of f32 logits
  const int64_t rows = kBudget / (weight.outputs() * 4) / ops::kRowTile * ops::kRowTile;
  return rows < ops::kRowTile ? ops::kRowTile : rows > 512 ? 512 : rows;
}

Status log_prob_rows(const LogProbRows& a, Stream stream) {
  if (a.rows == 0) return {};
  return launch(score_rows, {{static_cast<unsigned>(a.rows)}, kThreads, sizeof(BlockMemory)}, stream, a);
}

Status select_rows(const SelectRows& a, Stream stream) {
  return launch(choose_rows, {{1}, 32}, stream, a);
}

Status loss_rows(const LossRows& a, DType compute, Stream stream) {
  const LaunchShape shape{{static_cast<unsigned>(a.count)}, kThreads, sizeof(BlockMemory)};
  return with_type(compute,
                   [&](auto type) { return launch(differentiate_rows<decltype(type)>, shape, stream, a); });
}

Status put_rows(const float* from, const int64_t* rows, int64_t count, int64_t width, float* to,
                Stream stream) {
  const int64_t items = count * pieces_of(width, 8);
  return launch(put_pieces, grid_for(items, kCopyThreads), stream, from, rows, count, width, to);
}

}  // namespace ssrl::cuda
