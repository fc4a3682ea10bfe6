// Rows of logits to log-probs, losses and gradients.
#pragma once

#include "ops/cuda/kernels.h"
#include "ops/policy_loss_math.h"

namespace ssrl::cuda {

// Rows of logits that exist at a time.
int64_t vocabulary_chunk(const ops::PackedWeight& weight);

struct LogProbRows {
  const float* logits;  // [rows, V]
  int64_t rows, vocabulary;
  const int32_t* targets;
  float temperature;
  float* logprobs;
  float* entropies;
};
Status log_prob_rows(const LogProbRows& a, Stream stream);

struct RowResult {
  ops::RowLoss loss;
  float entropy, weight;
};

struct LossRows {
  ops::PolicyLoss loss;  // outputs are those of the whole batch, inputs [count] on the device
  const int64_t* rows;   // [count] which rows of the batch these are
  int64_t count, vocabulary;
  float* logits;       // [count, V]
  void* dlogits;       // [count, V] of the compute type, or null; the logits' own place for F32
  RowResult* results;  // [count]
};
Status loss_rows(const LossRows& a, DType compute, Stream stream);

// to[rows[i]] = from[i], rows of `width` floats.
Status put_rows(const float* from, const int64_t* rows, int64_t count, int64_t width, float* to,
                Stream stream);

}  // namespace ssrl::cuda
