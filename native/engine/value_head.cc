#include "engine/value_head.h"

#include <algorithm>
#include <cmath>

#include "engine/forward_passes.h"

namespace ssrl {
namespace {

struct RowValueLoss {
  double loss;
  double derivative;  // by the value
  bool clipped;
};

RowValueLoss row_value_loss(double value, double target, const float* old, double clip) {
  const double free = value - target;
  if (clip <= 0 || old == nullptr) return {0.5 * free * free, free, false};
  const double bound = std::clamp(value, *old - clip, *old + clip) - target;
  const bool clipped = bound * bound > free * free;
  return clipped ? RowValueLoss{0.5 * bound * bound, 0, true} : RowValueLoss{0.5 * free * free, free, false};
}

}  // namespace

Result<std::unique_ptr<ValueHead>> ValueHead::create(Model& model) {
  ops::Ops& ops = model.ops();
  std::unique_ptr<ValueHead> head(new ValueHead(model));
  const size_t bytes = size_t(head->width_) * sizeof(float);
  for (Buffer* buffer : {&head->weight_, &head->gradient_, &head->first_moment_, &head->second_moment_}) {
    Status status = buffer->allocate(ops, bytes);
    if (status.ok()) status = ops.fill_zero(buffer->data(), bytes);
    if (!status.ok()) return status;
  }
  Status status = ops.pack(head->weight_.floats(), 1, head->width_, model.compute(), &head->row_);
  if (status.ok()) {
    status = ops.pack(head->weight_.floats(), head->width_, 1, model.compute(), &head->column_);
  }
  if (!status.ok()) return status;
  return head;
}

Status ValueHead::values(const void* hidden, int64_t rows, float* values) {
  ops::Ops& ops = model_.ops();
  const size_t bytes = size_t(rows) * sizeof(float);
  SSRL_RETURN_IF_ERROR(values_.reserve(ops, bytes));
  SSRL_RETURN_IF_ERROR(ops.linear(*row_, hidden, rows, nullptr, values_.data(), DType::kF32, false));
  return ops.copy_to_host(values, values_.data(), bytes);
}

Status ValueHead::learn(const ValueRows& rows, const ValueLossOptions& options, float* dhidden,
                        bool accumulate, ValueLossStatistics* statistics) {
  ops::Ops& ops = model_.ops();
  std::vector<float> values(rows.rows), derivatives(rows.rows);
  SSRL_RETURN_IF_ERROR(this->values(rows.hidden, rows.rows, values.data()));
  for (int64_t i = 0; i < rows.rows; ++i) {
    const float* old = rows.old_values == nullptr ? nullptr : rows.old_values + i;
    const RowValueLoss loss = row_value_loss(values[i], rows.returns[i], old, options.clip);
    const double weight = options.coefficient * double(rows.weights[i]);
    derivatives[i] = float(weight * loss.derivative);
    statistics->loss += weight * loss.loss;
    statistics->value += values[i];
    statistics->clipped += loss.clipped;
  }
  const DType type = model_.compute();
  const size_t bytes = size_t(rows.rows) * sizeof(float);
  SSRL_RETURN_IF_ERROR(derivatives_.reserve(ops, bytes));
  SSRL_RETURN_IF_ERROR(rounded_.reserve(ops, bytes));
  SSRL_RETURN_IF_ERROR(ops.copy_from_host(derivatives_.data(), derivatives.data(), bytes));
  SSRL_RETURN_IF_ERROR(ops.convert(derivatives_.data(), DType::kF32, rounded_.data(), type, rows.rows));
  SSRL_RETURN_IF_ERROR(ops.linear_backward_weight(rounded_.data(), rows.hidden, type, rows.rows, 1, width_,
                                                  gradient_.floats(), nullptr));
  if (options.detached) return {};
  return ops.linear(*column_, rounded_.data(), rows.rows, nullptr, dhidden, DType::kF32, accumulate);
}

Status ValueHead::zero_gradient() {
  return model_.ops().fill_zero(gradient_.data(), gradient_.bytes());
}

Status ValueHead::step(ops::AdamW settings) {
  settings.weight = weight_.floats();
  settings.gradient = gradient_.floats();
  settings.first_moment = first_moment_.floats();
  settings.second_moment = second_moment_.floats();
  settings.count = width_;
  settings.step = steps + 1;
  SSRL_RETURN_IF_ERROR(model_.ops().adamw(settings));
  ++steps;
  return repack();
}

Status ValueHead::repack() {
  SSRL_RETURN_IF_ERROR(model_.ops().repack(weight_.floats(), row_.get()));
  return model_.ops().repack(weight_.floats(), column_.get());
}

Result<std::vector<float>> ValueHead::read(const Buffer& buffer) const {
  std::vector<float> values(static_cast<size_t>(width_));
  const Status status =
      model_.ops().copy_to_host(values.data(), buffer.data(), values.size() * sizeof(float));
  if (!status.ok()) return status;
  return values;
}

Status ValueHead::write(Buffer& buffer, const std::vector<float>& values) {
  return model_.ops().copy_from_host(buffer.data(), values.data(), values.size() * sizeof(float));
}

Result<std::vector<float>> state_values(Model& model, Workspace& workspace, ValueHead& head,
                                        const Sequences& sequences, const AbortFlag* abort) {
  std::vector<float> result, values;
  const auto read = [&](const ForwardPass& pass) -> Status {
    values.resize(pass.rows);
    SSRL_RETURN_IF_ERROR(head.values(pass.hidden, pass.rows, values.data()));
    for (const int64_t row : pass.wanted) result.push_back(values[row]);
    return {};
  };
  const Status status = for_each_pass(model, workspace, sequences, abort, read);
  if (!status.ok()) return status;
  return result;
}

}  // namespace ssrl
