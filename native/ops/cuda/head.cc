#include "ops/cuda/head.h"

#include <algorithm>
#include <vector>

#include "ops/cuda/loss.h"

namespace ssrl::cuda {
namespace {

struct Chunk {
  int64_t* count;      // [1]
  int64_t* rows;       // [chunk] the rows with a weight
  RowResult* results;  // [chunk]
  void* hidden;        // [chunk, D] compute type
  float* dhidden;      // [chunk, D]
  float* logits;       // [chunk, V]
  void* dlogits;       // [chunk, V] of the compute type; the logits' own place for F32
};

template <typename T>
T* carve(char** cursor, int64_t count) {
  T* result = reinterpret_cast<T*>(*cursor);
  *cursor += (static_cast<size_t>(count) * sizeof(T) + 127) / 128 * 128;
  return result;
}

Chunk carve_chunk(void* scratch, const ops::PackedWeight& weight, size_t* bytes) {
  const int64_t rows = vocabulary_chunk(weight);
  char* cursor = static_cast<char*>(scratch);
  Chunk chunk;
  chunk.count = carve<int64_t>(&cursor, 1);
  chunk.rows = carve<int64_t>(&cursor, rows);
  chunk.results = carve<RowResult>(&cursor, rows);
  chunk.hidden = carve<float>(&cursor, rows * weight.inputs());
  chunk.dhidden = carve<float>(&cursor, rows * weight.inputs());
  chunk.logits = carve<float>(&cursor, rows * weight.outputs());
  chunk.dlogits = chunk.logits;
  if (weight.compute() == DType::kBF16) chunk.dlogits = carve<uint16_t>(&cursor, rows * weight.outputs());
  if (bytes != nullptr) *bytes = static_cast<size_t>(cursor - static_cast<char*>(scratch));
  return chunk;
}

Status run_chunk(ops::Ops& ops, const ops::PolicyLoss& a, const Chunk& chunk, int64_t count,
                 ops::PolicyLossStatistics* statistics, Stream stream) {
  const int64_t vocabulary = a.weight->outputs(), inputs = a.weight->inputs();
  const DType type = a.weight->compute();
  const bool backward = a.dhidden != nullptr || a.dweight != nullptr;
  SSRL_RETURN_IF_ERROR(ops.gather_rows(a.hidden, type, chunk.rows, count, inputs, chunk.hidden));
  SSRL_RETURN_IF_ERROR(ops.linear(*a.weight, chunk.hidden, count, nullptr, chunk.logits, DType::kF32, false));
  SSRL_RETURN_IF_ERROR(loss_rows(
      {a, chunk.rows, count, vocabulary, chunk.logits, backward ? chunk.dlogits : nullptr, chunk.results},
      type, stream));
  std::vector<RowResult> results(static_cast<size_t>(count));
  SSRL_RETURN_IF_ERROR(ops.copy_to_host(results.data(), chunk.results, results.size() * sizeof(RowResult)));
  for (const RowResult& row : results) ops::add_row(a, row.weight, row.loss, row.entropy, statistics);
  if (a.dhidden != nullptr) {
    SSRL_RETURN_IF_ERROR(
        ops.linear_backward_input(*a.weight, chunk.dlogits, count, chunk.dhidden, DType::kF32));
    SSRL_RETURN_IF_ERROR(put_rows(chunk.dhidden, chunk.rows, count, inputs, a.dhidden, stream));
  }
  if (a.dweight == nullptr) return {};
  return ops.linear_backward_weight(chunk.dlogits, chunk.hidden, type, count, vocabulary, inputs, a.dweight,
                                    nullptr);
}

}  // namespace

size_t log_probs_bytes(const ops::PackedWeight& weight) {
  return static_cast<size_t>(vocabulary_chunk(weight) * weight.outputs()) * sizeof(float);
}

Status log_probs(ops::Ops& ops, const ops::LogProbs& a, Stream stream) {
  const int64_t chunk = vocabulary_chunk(*a.weight), inputs = a.weight->inputs();
  const auto element = static_cast<int64_t>(size_of(a.weight->compute()));
  float* logits = static_cast<float*>(a.scratch);
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t count = std::min(chunk, a.rows - begin);
    const void* hidden = static_cast<const char*>(a.hidden) + begin * inputs * element;
    SSRL_RETURN_IF_ERROR(ops.linear(*a.weight, hidden, count, nullptr, logits, DType::kF32, false));
    SSRL_RETURN_IF_ERROR(log_prob_rows({logits, count, a.weight->outputs(), a.targets + begin, a.temperature,
                                        a.logprobs + begin, a.entropies + begin},
                                       stream));
  }
  return {};
}

size_t policy_loss_bytes(const ops::PackedWeight& weight) {
  size_t bytes = 0;
  carve_chunk(nullptr, weight, &bytes);
  return bytes;
}

// Which rows count is for the device to say, so each chunk of rows waits for their number.
Status policy_loss(ops::Ops& ops, const ops::PolicyLoss& a, ops::PolicyLossStatistics* statistics,
                   Stream stream) {
  const int64_t limit = vocabulary_chunk(*a.weight);
  const Chunk chunk = carve_chunk(a.scratch, *a.weight, nullptr);
  for (int64_t begin = 0; begin < a.rows; begin += limit) {
    const int64_t end = std::min(a.rows, begin + limit);
    SSRL_RETURN_IF_ERROR(select_rows({a, begin, end, a.weight->inputs(), chunk.rows, chunk.count}, stream));
    int64_t count = 0;
    SSRL_RETURN_IF_ERROR(ops.copy_to_host(&count, chunk.count, sizeof count));
    if (count > 0) SSRL_RETURN_IF_ERROR(run_chunk(ops, a, chunk, count, statistics, stream));
  }
  return {};
}

}  // namespace ssrl::cuda
