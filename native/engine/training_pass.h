// Forward pass, loss and backward pass of one packed batch.
#pragma once

#include <vector>

#include "engine/backward.h"
#include "engine/value_head.h"

namespace ssrl {

// The rows of a batch that enter the loss, in row order.
struct ActiveRows {
  std::vector<int64_t> rows;               // row in the batch
  std::vector<int32_t> targets;            // the token after it
  std::vector<float> weights;              // not 0
  std::vector<float> advantages;           // or empty
  std::vector<float> old_log_probs;        // or empty: ratio 1
  std::vector<float> reference_log_probs;  // or empty: no KL term
  std::vector<float> drift_weights;        // or empty
  std::vector<float> returns;              // or empty: no value loss
  std::vector<float> old_values;           // or empty: values are not clipped
  std::vector<int32_t> sequences;          // whose rows have one ratio in common; empty: each its own
  int64_t count() const { return int64_t(rows.size()); }
};

// What is minimised: the loss of the policy, of the values, or both.
struct PassLoss {
  bool has_policy = true;
  ops::PolicyLossOptions policy;
  ValueLossOptions value;  // with ActiveRows::returns
};

struct PassStatistics {
  ops::PolicyLossStatistics policy;
  ValueLossStatistics value;
};

class TrainingPass {
 public:
  TrainingPass(Model& model, int64_t activation_budget) : model_(model), budget_(activation_budget) {}

  // Adds the gradients of the batch's loss to `slab` (Layout::elements floats). log_probs [active.count()]
  // out. After an error, an abort included, `slab` holds part of the sum.
  // `values` is there where rows have returns. Without a policy's loss log_probs are not written.
  Status run(const PackedBatch& batch, const ActiveRows& active, const PassLoss& loss, ValueHead* values,
             float* slab, float* log_probs, PassStatistics* statistics, const AbortFlag* abort);

  // Share of the layers whose activations did not fit the budget of the last run.
  double recomputed() const { return 1 - double(activations_.kept()) / model_.config().layers; }

  size_t bytes() const { return activations_.bytes() + head_scratch_.bytes() + gathered_.bytes(); }

 private:
  Status forward(const PackedBatch& batch, KeyValues& key_values, const AbortFlag* abort);
  Status sequence_log_ratios(const ActiveRows& active, float temperature, std::vector<float>* log_ratios);
  Status final_norm(const ActiveRows& active);
  Status policy_head(const ActiveRows& active, const ops::PolicyLossOptions& loss, float* slab,
                     float* log_probs, ops::PolicyLossStatistics* statistics);
  Status backward_final_norm(const PackedBatch& batch, const ActiveRows& active, float* slab);
  Status backward(const BackwardContext& context, KeyValues& key_values, const AbortFlag* abort);

  Model& model_;
  int64_t budget_;
  Activations activations_;
  Buffer head_scratch_, head_scores_, gathered_;
};

}  // namespace ssrl
