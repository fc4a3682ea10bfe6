// The fused head: output projection, log-softmax, clipped policy-gradient (or SFT) loss and its gradients,
// chunk by chunk over the rows that count. The gradient of a row of logits replaces the logits, in the
// compute type.
#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/vocabulary.h"
#include "ops/policy_loss_math.h"

namespace ssrl::ops::host {
namespace {

// Each chunk reads and writes all of the gradient of the weight: the more rows at a time the better.
int64_t loss_chunk(const PackedWeight& weight) {
  return vocabulary_chunk(weight, int64_t{48} << 20);
}

struct Chunk {
  int64_t* rows;    // [chunk] indices of the rows with a weight
  void* hidden;     // [chunk, D] compute type
  float* dhidden;   // [chunk, D]
  float* logits;    // [chunk, V]
  int64_t width;    // elements of the compute type between rows of the gradient, which take the logits' place
  RowLoss* losses;  // [chunk]
  float* entropies;
};

template <typename T>
T* carve(char** cursor, int64_t count) {
  T* result = reinterpret_cast<T*>(*cursor);
  *cursor += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  return result;
}

Chunk carve_chunk(void* scratch, const PackedWeight& weight, size_t* bytes) {
  const int64_t rows = loss_chunk(weight), inputs = weight.inputs();
  char* cursor = static_cast<char*>(scratch);
  Chunk chunk;
  chunk.rows = carve<int64_t>(&cursor, rows);
  chunk.losses = carve<RowLoss>(&cursor, rows);
  chunk.entropies = carve<float>(&cursor, rows);
  chunk.hidden = carve<float>(&cursor, rows * inputs);
  chunk.dhidden = carve<float>(&cursor, rows * inputs);
  chunk.logits = carve<float>(&cursor, rows * weight.outputs());
  chunk.width = weight.outputs() * static_cast<int64_t>(sizeof(float) / size_of(weight.compute()));
  if (bytes != nullptr) *bytes = static_cast<size_t>(cursor - static_cast<char*>(scratch));
  return chunk;
}

Status run_chunk(const PolicyLoss& a, const Chunk& chunk, int64_t count, PolicyLossStatistics* statistics) {
  const int64_t vocabulary = a.weight->outputs(), inputs = a.weight->inputs();
  const DType type = a.weight->compute();
  const float inverse = 1.0f / a.options.temperature;
  const bool backward = a.dhidden != nullptr || a.dweight != nullptr;
  SSRL_RETURN_IF_ERROR(gather_rows(a.hidden, type, chunk.rows, count, inputs, chunk.hidden));
  SSRL_RETURN_IF_ERROR(linear(*a.weight, chunk.hidden, count, nullptr, chunk.logits, DType::kF32, false));
  parallel_for(count, 1, [&](int64_t i) {
    float* logits = chunk.logits + i * vocabulary;
    const int64_t row = chunk.rows[i];
    const RowSoftmax softmax = log_softmax_row(logits, vocabulary, inverse);
    const float logprob = row_logprob(softmax, logits[a.targets[row]], inverse);
    a.logprobs[row] = logprob;
    if (a.entropies != nullptr) a.entropies[row] = softmax.entropy;
    chunk.entropies[i] = softmax.entropy;
    chunk.losses[i] = row_loss(a, row, logprob);
    if (backward) {
      logits_to_gradient(logits, vocabulary, a.targets[row], softmax, inverse, chunk.losses[i].derivative,
                         type, logits);
    }
  });
  for (int64_t i = 0; i < count; ++i) {
    add_row(a, a.weights[chunk.rows[i]], chunk.losses[i], chunk.entropies[i], statistics);
  }
  if (a.dhidden != nullptr) {
    SSRL_RETURN_IF_ERROR(backward_input(
        *a.weight, {chunk.logits, chunk.width, count, nullptr, chunk.dhidden, DType::kF32, false}));
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(a.dhidden + chunk.rows[i] * inputs, chunk.dhidden + i * inputs,
                  static_cast<size_t>(inputs) * sizeof(float));
    }
  }
  if (a.dweight == nullptr) return {};
  return backward_weight(
      {chunk.logits, chunk.width, chunk.hidden, type, count, vocabulary, inputs, a.dweight});
}

}  // namespace

size_t policy_loss_scratch(const PackedWeight& weight) {
  size_t bytes = 0;
  carve_chunk(nullptr, weight, &bytes);
  return bytes;
}

Status policy_loss(const PolicyLoss& a, PolicyLossStatistics* statistics) {
  const int64_t limit = loss_chunk(*a.weight);
  const size_t row_bytes = static_cast<size_t>(a.weight->inputs()) * sizeof(float);
  const Chunk chunk = carve_chunk(a.scratch, *a.weight, nullptr);
  int64_t count = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    if (a.weights[row] != 0) {
      chunk.rows[count++] = row;
    } else {
      a.logprobs[row] = 0;
      if (a.entropies != nullptr) a.entropies[row] = 0;
      if (a.dhidden != nullptr) std::memset(a.dhidden + row * a.weight->inputs(), 0, row_bytes);
    }
    if (count == limit || (row + 1 == a.rows && count > 0)) {
      SSRL_RETURN_IF_ERROR(run_chunk(a, chunk, count, statistics));
      count = 0;
    }
  }
  return {};
}

}  // namespace ssrl::ops::host
