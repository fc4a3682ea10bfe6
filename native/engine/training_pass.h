// Forward pass, loss and backward pass of one packed batch.
#pragma once

#include <vector>

#include "engine/backward.h"

namespace ssrl {

// The rows of a batch that enter the loss, in row order.
struct ActiveRows {
  std::vector<int64_t> rows;               // row in the batch
  std::vector<int32_t> targets;            // the token after it
  std::vector<float> weights;              // not 0
  std::vector<float> advantages;           // or empty
  std::vector<float> old_log_probs;        // or empty: ratio 1
  std::vector<float> reference_log_probs;  // or empty: no KL term
  int64_t count() const { return int64_t(rows.size()); }
};

class TrainingPass {
 public:
  TrainingPass(Model& model, int64_t activation_budget) : model_(model), budget_(activation_budget) {}

  // Adds the gradients of the batch's loss to `slab` (Layout::elements floats). log_probs [active.count()]
  // out. After an error, an abort included, `slab` holds part of the sum.
  Status run(const PackedBatch& batch, const ActiveRows& active, const ops::PolicyLossOptions& loss,
             float* slab, float* log_probs, ops::PolicyLossStatistics* statistics, const AbortFlag* abort);

  size_t bytes() const { return activations_.bytes() + head_scratch_.bytes() + gathered_.bytes(); }

 private:
  Status forward(const PackedBatch& batch, KeyValues& key_values, const AbortFlag* abort);
  Status head(const ActiveRows& active, const ops::PolicyLossOptions& loss, float* slab, float* log_probs,
              ops::PolicyLossStatistics* statistics);
  Status backward_final_norm(const PackedBatch& batch, const ActiveRows& active, float* slab);
  Status backward(const BackwardContext& context, KeyValues& key_values, const AbortFlag* abort);

  Model& model_;
  int64_t budget_;
  Activations activations_;
  Buffer head_scratch_, gathered_;
};

}  // namespace ssrl
