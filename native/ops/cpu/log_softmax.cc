// The one way a row of logits becomes log-probs and an entropy, and the log-probs of given tokens by chunks
// of rows.
#include <cmath>
#include <cstring>

#include "ops/cpu/kernels.h"
#include "ops/cpu/vocabulary.h"

namespace ssrl::ops::host {

RowSoftmax log_softmax_row(const float* logits, int64_t vocabulary, float inverse_temperature) {
  float maximum = logits[0] * inverse_temperature;
  for (int64_t i = 1; i < vocabulary; ++i) {
    const float scaled = logits[i] * inverse_temperature;
    if (scaled > maximum) maximum = scaled;
  }
  double sum = 0, weighted = 0;
  for (int64_t i = 0; i < vocabulary; ++i) {
    const float shifted = logits[i] * inverse_temperature - maximum;
    const float weight = std::exp(shifted);
    sum += weight;
    if (weight > 0) weighted += static_cast<double>(weight) * shifted;
  }
  return {maximum, static_cast<float>(std::log(sum)), static_cast<float>(std::log(sum) - weighted / sum)};
}

int64_t vocabulary_chunk(const PackedWeight& weight) {
  constexpr int64_t budget = int64_t{64} << 20;
  const int64_t rows = budget / (weight.outputs() * 4) / kRowTile * kRowTile;
  return rows < kRowTile ? kRowTile : rows > 512 ? 512 : rows;
}

size_t log_probs_scratch(const PackedWeight& weight) {
  return static_cast<size_t>(vocabulary_chunk(weight) * weight.outputs()) * sizeof(float);
}

Status log_probs(const LogProbs& a) {
  const int64_t vocabulary = a.weight->outputs(), chunk = vocabulary_chunk(*a.weight);
  const float inverse_temperature = 1.0f / a.temperature;
  float* logits = static_cast<float*>(a.scratch);
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t count = a.rows - begin < chunk ? a.rows - begin : chunk;
    const void* hidden = at(a.hidden, a.weight->compute(), begin * a.weight->inputs());
    SSRL_RETURN_IF_ERROR(linear(*a.weight, hidden, count, nullptr, logits, DType::kF32, false));
    parallel_for(count, 1, [&](int64_t i) {
      const float* row = logits + i * vocabulary;
      const RowSoftmax softmax = log_softmax_row(row, vocabulary, inverse_temperature);
      a.logprobs[begin + i] = row_logprob(softmax, row[a.targets[begin + i]], inverse_temperature);
      a.entropies[begin + i] = softmax.entropy;
    });
  }
  return {};
}

}  // namespace ssrl::ops::host
