// What a state is worth: a linear head on the final hidden rows, v = w·h, with its gradient and moments. It
// belongs to a learner, so that the model stays what it is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "abort.h"
#include "engine/model.h"
#include "engine/score.h"

namespace ssrl {

struct ValueLossOptions {
  double clip = 0;  // how far a value may move from the old one; 0: any distance
  double coefficient = 1;
  bool detached = false;  // the gradient ends at the head
};

struct ValueLossStatistics {  // over rows that enter the loss
  double loss = 0;            // weight * coefficient * the row's loss
  double value = 0;           // plain sum
  int64_t clipped = 0;        // rows where the clip takes the gradient
};

// Hidden rows and what their values should be; all but `hidden` in host memory.
struct ValueRows {
  const void* hidden;       // [rows, D] of the compute type
  const float* weights;     // [rows]
  const float* returns;     // [rows]
  const float* old_values;  // [rows], or null when there is no clip
  int64_t rows;
};

class ValueHead {
 public:
  // All weights are 0: every state is worth the same.
  static Result<std::unique_ptr<ValueHead>> create(Model& model);

  // values [rows] in host memory, of hidden rows [rows, D] of the compute type.
  Status values(const void* hidden, int64_t rows, float* values);
  // 0.5 * max((v - R)², (clip(v, old - c, old + c) - R)²) a row (PPO2's clipped value loss). Adds to the
  // head's gradient, and, unless detached, to dhidden [rows, D] f32; sets dhidden where it holds nothing yet.
  Status learn(const ValueRows& rows, const ValueLossOptions& options, float* dhidden, bool accumulate,
               ValueLossStatistics* statistics);

  int64_t width() const { return width_; }
  Buffer& weight() { return weight_; }
  Buffer& gradient() { return gradient_; }
  Buffer& first_moment() { return first_moment_; }
  Buffer& second_moment() { return second_moment_; }
  int64_t steps = 0;

  Status zero_gradient();
  // `settings` says all but what is the head's own.
  Status step(ops::AdamW settings);
  // After a change of the weights.
  Status repack();
  Result<std::vector<float>> read(const Buffer& buffer) const;
  Status write(Buffer& buffer, const std::vector<float>& values);

 private:
  explicit ValueHead(Model& model) : model_(model), width_(model.config().hidden) {}

  Model& model_;
  int64_t width_;
  Buffer weight_, gradient_, first_moment_, second_moment_;  // [D]
  std::unique_ptr<ops::PackedWeight> row_, column_;          // [1, D] and [D, 1]
  Buffer values_, derivatives_, rounded_;                    // [rows]; of the compute type
};

// The value of the state before each token but the first, flat: T - 1 a sequence.
Result<std::vector<float>> state_values(Model& model, Workspace& workspace, ValueHead& head,
                                        const Sequences& sequences, const AbortFlag* abort);

}  // namespace ssrl
