// The loss of one row and its derivative by the row's log-prob, the same on every device.
#pragma once

#include <cmath>

#include "ops/ops.h"

#if defined(__CUDACC__)
#define SSRL_LOSS_DEVICE __host__ __device__ inline
#else
#define SSRL_LOSS_DEVICE inline
#endif

namespace ssrl::ops {

// What one row adds to the statistics, and the derivative of its loss by its log-prob.
struct RowLoss {
  float policy;
  float kl;
  float ratio;
  float mismatch;
  float derivative;  // weight included
  bool clip_low;
  bool clip_high;
};

struct RowTerm {
  float value;
  float derivative;  // by the row's log-prob
};

SSRL_LOSS_DEVICE RowTerm row_kl(KlEstimator kind, float difference) {
  if (kind == KlEstimator::kK1) return {-difference, 1.0f};
  if (kind == KlEstimator::kK2) return {0.5f * difference * difference, -difference};
  const float rise = expm1f(difference);
  return {rise - difference, -rise};
}

SSRL_LOSS_DEVICE RowTerm row_drift(float weight, float log_ratio) {
  const float sign = log_ratio > 0 ? 1.0f : log_ratio < 0 ? -1.0f : 0.0f;
  return {weight * fabsf(log_ratio), weight * sign};
}

SSRL_LOSS_DEVICE RowLoss row_loss(const PolicyLoss& a, int64_t row, float logprob) {
  const PolicyLossOptions& o = a.options;
  RowLoss loss{0, 0, 1, 0, 0, false, false};
  if (a.old_logprobs != nullptr) loss.mismatch = fabsf(logprob - a.old_logprobs[row]);
  if (o.type == LossType::kSft) {
    loss.policy = -logprob;
    loss.derivative = -a.weights[row];
    return loss;
  }
  const float advantage = a.advantages[row];
  if (a.log_ratios != nullptr) {
    loss.ratio = expf(a.log_ratios[row]);
  } else if (a.old_logprobs != nullptr) {
    loss.ratio = expf(logprob - a.old_logprobs[row]);
  }
  const float r = loss.ratio, low = 1.0f - o.epsilon, high = 1.0f + o.epsilon_high;
  const float raised = r < low ? low : r, clipped = high < raised ? high : raised;
  loss.clip_low = advantage < 0 && r < low;
  loss.clip_high = advantage > 0 && r > high;
  const float free = -advantage * r, bound = -advantage * clipped;
  loss.policy = free < bound ? bound : free;
  float derivative = free >= bound ? free : 0.0f;
  if (o.dual_clip > 0 && advantage < 0 && loss.policy > -advantage * o.dual_clip) {
    loss.policy = -advantage * o.dual_clip;
    derivative = 0;
  }
  if (a.drift_weights != nullptr) {
    const RowTerm drift = row_drift(a.drift_weights[row], logprob - a.old_logprobs[row]);
    loss.policy += drift.value;
    derivative += drift.derivative;
  }
  if (o.beta != 0 && a.ref_logprobs != nullptr) {
    const RowTerm kl = row_kl(o.kl, a.ref_logprobs[row] - logprob);
    loss.kl = kl.value;
    derivative += o.beta * kl.derivative;
  }
  loss.derivative = a.weights[row] * derivative;
  return loss;
}

inline void add_row(const PolicyLoss& a, double weight, const RowLoss& loss, float entropy,
                    PolicyLossStatistics* total) {
  const double kl_weight = a.options.type == LossType::kSft ? 0 : a.options.beta;
  total->policy_loss += weight * loss.policy;
  total->loss += weight * (loss.policy + kl_weight * loss.kl);
  total->kl += loss.kl;
  total->entropy += entropy;
  total->ratio += loss.ratio;
  if (static_cast<double>(loss.ratio) > total->ratio_max) total->ratio_max = loss.ratio;
  // A NaN must survive: a maximum would drop it.
  if (!(loss.mismatch <= total->mismatch)) total->mismatch = loss.mismatch;
  total->clip_low += loss.clip_low;
  total->clip_high += loss.clip_high;
  total->rows += 1;
}

}  // namespace ssrl::ops
