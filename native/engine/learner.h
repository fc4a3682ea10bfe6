// Gradients, optimizer state and the step: what turns a batch with advantages into better weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/score.h"
#include "engine/training_pass.h"

namespace ssrl {

class TensorFile;
struct TensorInfo;

// What the weights of a learner's value head are called beside the model's parameters.
constexpr const char* kValueHeadName = "value_head.weight";

struct LearnerOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  int64_t activation_budget = 0;  // bytes of activations that may be kept for the backward pass
  bool value_head = false;        // the learner also has a head that says what a state is worth
};

// A micro-batch. Per-token arrays are flat, T - 1 values a sequence: value t belongs to token t + 1.
struct LearnerBatch {
  Sequences sequences;
  const float* weights;              // masks and normalisers folded in; 0: takes no part
  const float* advantages;           // or null for kSft
  const float* old_log_probs;        // or null: ratio 1
  const float* reference_log_probs;  // or null when beta is 0
  const float* drift_weights;        // of |log p - log p_old|, or null; needs old_log_probs
  bool sequence_ratio;               // one ratio a sequence: the exponential of its mean log-ratio
  const float* returns;              // or null: no value loss
  const float* old_values;           // or null: values are not clipped
};

struct LearnerStatistics {
  PassStatistics loss;
  std::vector<float> log_probs;  // flat like the batch; 0 where the weight is 0
  double recomputed = 0;         // share of the layers whose forward pass was run twice
};

struct StepOptions {
  double learning_rate;
  double max_gradient_norm;
  double value_head_learning_rate;
  bool value_head_only;  // the model stays as it is
};

class Learner {
 public:
  // The model must be there for all calls but the destructor. kOutOfMemory where gradients and moments (12
  // bytes a parameter) don't fit, kInvalidArg for a frozen model.
  static Result<std::unique_ptr<Learner>> create(Model& model, const LearnerOptions& options);

  // Forward and backward; adds to the gradients. kNonFinite, kAborted and other failures in the middle of the
  // work clear the gradients of all micro-batches so far, since part of this one's may be in them.
  Result<LearnerStatistics> accumulate(const LearnerBatch& batch, const PassLoss& loss,
                                       const AbortFlag* abort);

  // Of one parameter, by its Hugging Face name.
  Result<std::vector<float>> read_gradient(const std::string& name) const;
  Status zero_gradients();

  // Scales the gradients to at most `max_gradient_norm` over all parameters (torch's clip_grad_norm_),
  // updates by AdamW with decoupled decay, repacks, clears the gradients. kNonFinite leaves weights and
  // moments as they are and clears the gradients. kOutOfMemory where a clone shares the weights and a copy
  // doesn't fit.
  Status step(const StepOptions& options, double* gradient_norm);

  // Null without one.
  ValueHead* value_head() { return value_head_.get(); }

  // The moments and the step count as a safetensors file.
  Status save_state(const std::string& path) const;
  // kModelFormat where the file does not fit the model; the state is then as before. A file that can't be
  // read to its end leaves the state of a fresh learner.
  Status load_state(const std::string& path);

  int64_t steps() const { return steps_; }

 private:
  Learner(Model& model, const LearnerOptions& options)
      : model_(model), options_(options), pass_(model, options.activation_budget) {}
  Status run(const LearnerBatch& batch, const PassLoss& loss, const AbortFlag* abort,
             LearnerStatistics* statistics);
  Status sum_of_squares(bool value_head_only, double* squares);
  Status step_model(ops::AdamW settings);
  Status read_value_head(const TensorFile& file);
  Status read_moments(const TensorFile& file, const std::vector<const TensorInfo*>& found);

  Model& model_;
  LearnerOptions options_;
  TrainingPass pass_;
  Buffer gradients_, first_moments_, second_moments_;  // laid out like the model's slab
  std::unique_ptr<ValueHead> value_head_;
  int64_t steps_ = 0;
};

}  // namespace ssrl
