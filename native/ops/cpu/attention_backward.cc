// Gradient of causal attention over packed sequences. Probabilities are rebuilt from the saved log-sum-exp;
// one task is a kv head of one sequence, so no two threads add to the same dk or dv row.
#include <cmath>

#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {
namespace {

constexpr int kMaxHeadDim = 256;

struct Task {
  int64_t begin, end;  // rows of the sequence
  int kv_head;
};

void backward_query(const AttentionBackward& a, const Task& task, int64_t row, int head, float* dk,
                    float* dv) {
  const AttentionShape& shape = a.shape;
  const int d = shape.head_dim;
  const int64_t kv_width = static_cast<int64_t>(shape.kv_heads) * d,
                kv_offset = static_cast<int64_t>(task.kv_head) * d;
  const int64_t q_base = row * shape.q_stride + static_cast<int64_t>(head) * d;
  const int64_t out_base = row * shape.out_stride + static_cast<int64_t>(head) * d;
  float query[kMaxHeadDim], dout[kMaxHeadDim], dq[kMaxHeadDim], delta = 0;
  for (int j = 0; j < d; ++j) {
    query[j] = load(a.q, shape.type, q_base + j);
    dout[j] = load(a.dout, shape.type, out_base + j);
    delta += dout[j] * load(a.out, shape.type, out_base + j);
    dq[j] = 0;
  }
  const float log_sum_exp = a.log_sum_exp[row * shape.heads + head];
  for (int64_t key = task.begin; key <= row; ++key) {
    const int64_t base = key * shape.kv_stride + kv_offset;
    float score = 0, dprobability = 0;
    for (int j = 0; j < d; ++j) {
      score += query[j] * load(a.k, shape.type, base + j);
      dprobability += dout[j] * load(a.v, shape.type, base + j);
    }
    const float probability = std::exp(score * shape.scale - log_sum_exp);
    const float dscore = probability * (dprobability - delta) * shape.scale;
    float* dk_row = dk + key * kv_width + kv_offset;
    float* dv_row = dv + key * kv_width + kv_offset;
    for (int j = 0; j < d; ++j) {
      dv_row[j] += probability * dout[j];
      dk_row[j] += dscore * query[j];
      dq[j] += dscore * load(a.k, shape.type, base + j);
    }
  }
  for (int j = 0; j < d; ++j) store(a.dq, shape.type, q_base + j, dq[j]);
}

}  // namespace

size_t attention_backward_scratch(const AttentionBackward& a) {
  const int64_t rows = a.sequence_count > 0 ? a.starts[a.sequence_count] : 0;
  return static_cast<size_t>(rows * 2 * a.shape.kv_heads * a.shape.head_dim);
}

Status attention_backward(const AttentionBackward& a) {
  const int64_t rows = a.sequence_count > 0 ? a.starts[a.sequence_count] : 0;
  const int d = a.shape.head_dim, group = a.shape.heads / a.shape.kv_heads;
  const int64_t kv_width = static_cast<int64_t>(a.shape.kv_heads) * d;
  float* dk = a.scratch;
  float* dv = a.scratch + rows * kv_width;
  parallel_for(a.sequence_count * a.shape.kv_heads, 1, [&](int64_t i) {
    const int64_t s = i / a.shape.kv_heads;
    const Task task{a.starts[s], a.starts[s + 1], static_cast<int>(i % a.shape.kv_heads)};
    for (int64_t row = task.begin; row < task.end; ++row) {
      float* dk_row = dk + row * kv_width + static_cast<int64_t>(task.kv_head) * d;
      float* dv_row = dv + row * kv_width + static_cast<int64_t>(task.kv_head) * d;
      for (int j = 0; j < d; ++j) dk_row[j] = dv_row[j] = 0;
    }
    for (int64_t row = task.begin; row < task.end; ++row) {
      for (int head = 0; head < group; ++head)
        backward_query(a, task, row, task.kv_head * group + head, dk, dv);
    }
    for (int64_t row = task.begin; row < task.end; ++row) {
      const int64_t from = row * kv_width + static_cast<int64_t>(task.kv_head) * d;
      const int64_t to = row * a.shape.kv_stride + static_cast<int64_t>(task.kv_head) * d;
      for (int j = 0; j < d; ++j) {
        store(a.dk, a.shape.type, to + j, dk[from + j]);
        store(a.dv, a.shape.type, to + j, dv[from + j]);
      }
    }
  });
  return {};
}

}  // namespace ssrl::ops::host
