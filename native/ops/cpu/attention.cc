// Causal attention over keys and values that lie in blocks of kKeyBlock tokens. Every query row walks the
// same blocks in the same order with the same arithmetic, however its sequence was split into calls.
#include <cmath>
#include <limits>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {
namespace {

constexpr int kMaxHeadDim = 256;

// One query row of one head over all keys that it sees.
void attend_row(const AttentionShape& shape, const AttentionSequence& sequence, const void* q, int64_t row,
                int head, void* out, float* log_sum_exp) {
  const int d = shape.head_dim, kv_head = head / (shape.heads / shape.kv_heads);
  const int keys = sequence.position + static_cast<int>(row) + 1;
  const int64_t q_base = (sequence.query_row + row) * shape.q_stride + static_cast<int64_t>(head) * d;
  float query[kMaxHeadDim], sum[kMaxHeadDim];
  for (int j = 0; j < d; ++j) query[j] = load(q, shape.type, q_base + j), sum[j] = 0;
  float maximum = -std::numeric_limits<float>::infinity(), total = 0;
  for (int begin = 0; begin < keys; begin += kKeyBlock) {
    const void* key = sequence.key_blocks[begin / kKeyBlock];
    const void* value = sequence.value_blocks[begin / kKeyBlock];
    const int count = keys - begin < kKeyBlock ? keys - begin : kKeyBlock;
    float scores[kKeyBlock], block_maximum = maximum;
    for (int i = 0; i < count; ++i) {
      const int64_t base = i * shape.kv_stride + static_cast<int64_t>(kv_head) * d;
      float dot = 0;
      for (int j = 0; j < d; ++j) dot += query[j] * load(key, shape.type, base + j);
      scores[i] = dot * shape.scale;
      if (scores[i] > block_maximum) block_maximum = scores[i];
    }
    const float correction = std::exp(maximum - block_maximum);
    maximum = block_maximum;
    total *= correction;
    for (int j = 0; j < d; ++j) sum[j] *= correction;
    for (int i = 0; i < count; ++i) {
      const float weight = std::exp(scores[i] - maximum);
      const int64_t base = i * shape.kv_stride + static_cast<int64_t>(kv_head) * d;
      total += weight;
      for (int j = 0; j < d; ++j) sum[j] += weight * load(value, shape.type, base + j);
    }
  }
  const int64_t out_base = (sequence.query_row + row) * shape.out_stride + static_cast<int64_t>(head) * d;
  for (int j = 0; j < d; ++j) store(out, shape.type, out_base + j, sum[j] / total);
  if (log_sum_exp != nullptr) {
    log_sum_exp[(sequence.query_row + row) * shape.heads + head] = maximum + std::log(total);
  }
}

}  // namespace

Status attention(const Attention& a) {
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const AttentionSequence& sequence = a.sequences[s];
    const int64_t work = static_cast<int64_t>(sequence.query_count) * a.shape.heads;
    parallel_for(work, 4, [&](int64_t i) {
      attend_row(a.shape, sequence, a.q, i / a.shape.heads, static_cast<int>(i % a.shape.heads), a.out,
                 a.log_sum_exp);
    });
  }
  return {};
}

}  // namespace ssrl::ops::host
