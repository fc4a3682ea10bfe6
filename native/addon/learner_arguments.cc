#include "addon/learner_arguments.h"

#include "addon/arguments.h"
#include "addon/async.h"

namespace ssrl {
namespace {

[[noreturn]] void refuse(Napi::Env env, const std::string& message) {
  throw to_error(env, invalid_arg(message));
}

// False for null; the array's length must be `count`.
bool floats_of(const Napi::Object& object, const char* name, size_t count, bool required,
               std::vector<float>* out) {
  const Napi::Value value = object.Get(name);
  if (!required && (value.IsNull() || value.IsUndefined())) return false;
  *out = float32_array_of(value, name);
  if (out->size() == count) return true;
  refuse(object.Env(), "Expected " + std::to_string(count) + " values for " + name + " but received " +
                           std::to_string(out->size()));
}

bool flag_of(const Napi::Value& value) {
  return value.IsBoolean() && value.As<Napi::Boolean>().Value();
}

}  // namespace

BatchCopy read_sequences(const Napi::Value& tokens, const Napi::Value& offsets, const ModelConfig& config) {
  BatchCopy batch;
  batch.tokens = int32_array_of(tokens, "tokens");
  batch.offsets = int32_array_of(offsets, "offsets");
  if (batch.offsets.empty()) refuse(tokens.Env(), "Expected at least one offset but received none");
  throw_if_error(tokens.Env(), check_sequences(config, batch.view().sequences, int64_t(batch.tokens.size())));
  return batch;
}

BatchCopy read_batch(const Napi::Object& object, const ModelConfig& config) {
  BatchCopy batch = read_sequences(object.Get("tokens"), object.Get("offsets"), config);
  const size_t values = batch.tokens.size() + 1 - batch.offsets.size();
  floats_of(object, "weights", values, true, &batch.weights);
  batch.has_advantages = floats_of(object, "advantages", values, false, &batch.advantages);
  batch.has_old = floats_of(object, "oldLogProbs", values, false, &batch.old_log_probs);
  batch.has_reference = floats_of(object, "referenceLogProbs", values, false, &batch.reference_log_probs);
  batch.has_drift = floats_of(object, "driftWeights", values, false, &batch.drift_weights);
  if (batch.has_drift && !batch.has_old) refuse(object.Env(), "Expected oldLogProbs beside driftWeights");
  batch.has_returns = floats_of(object, "returns", values, false, &batch.returns);
  batch.has_old_values = floats_of(object, "oldValues", values, false, &batch.old_values);
  batch.sequence_ratio = flag_of(object.Get("sequenceRatio"));
  return batch;
}

namespace {

ops::KlEstimator kl_estimator_of(const Napi::Value& value) {
  const std::string name = value.IsUndefined() ? "k3" : string_of(value, "klEstimator");
  if (name == "k1") return ops::KlEstimator::kK1;
  if (name == "k2") return ops::KlEstimator::kK2;
  if (name != "k3") refuse(value.Env(), "Expected 'k1', 'k2' or 'k3' for klEstimator");
  return ops::KlEstimator::kK3;
}

ValueLossOptions read_value_loss(const Napi::Object& object, const BatchCopy& batch) {
  ValueLossOptions value;
  if (!batch.has_returns) return value;
  value.clip = number_of(object.Get("valueClip"), "valueClip");
  value.coefficient = number_of(object.Get("valueCoefficient"), "valueCoefficient");
  value.detached = flag_of(object.Get("detachValue"));
  if (!(value.clip >= 0) || !(value.coefficient > 0)) {
    refuse(object.Env(), "Expected a valueClip of at least 0 and a valueCoefficient above 0");
  }
  if (value.clip > 0 && !batch.has_old_values) {
    refuse(object.Env(), "Expected oldValues, as valueClip is not 0");
  }
  return value;
}

}  // namespace

PassLoss read_loss(const Napi::Object& object, const BatchCopy& batch) {
  const auto number = [&](const char* name) { return float(number_of(object.Get(name), name)); };
  const std::string name = string_of(object.Get("type"), "type");
  if (name != "sft" && name != "policy-gradient" && name != "value") {
    refuse(object.Env(), "Expected 'sft', 'policy-gradient' or 'value' for type");
  }
  if (name == "value" && !batch.has_returns) refuse(object.Env(), "Expected returns for a loss of values");
  const ops::PolicyLossOptions loss = {
      .type = name == "policy-gradient" ? ops::LossType::kPolicyGradient : ops::LossType::kSft,
      .temperature = number("temperature"),
      .epsilon = number("epsilon"),
      .epsilon_high = number("epsilonHigh"),
      .dual_clip = number("dualClip"),
      .beta = number("beta"),
      .kl = kl_estimator_of(object.Get("klEstimator"))};
  if (!(loss.temperature > 0)) refuse(object.Env(), "Expected a temperature above 0");
  if (loss.type == ops::LossType::kPolicyGradient) {
    if (!batch.has_advantages) refuse(object.Env(), "Expected advantages for a policy-gradient loss");
    if (loss.beta != 0 && !batch.has_reference) {
      refuse(object.Env(), "Expected referenceLogProbs, as beta is not 0");
    }
  }
  return {.has_policy = name != "value", .policy = loss, .value = read_value_loss(object, batch)};
}

StepOptions read_step(const Napi::Object& object) {
  const double rate = number_of(object.Get("learningRate"), "learningRate");
  const Napi::Value most_value = object.Get("maxGradNorm");
  const double most = most_value.IsNumber() ? most_value.As<Napi::Number>().DoubleValue() : 0;
  if (!(rate >= 0) || !(most > 0)) {
    refuse(object.Env(),
           "Expected a learningRate of at least 0 and a maxGradNorm above 0 (Infinity: no clipping)");
  }
  const Napi::Value head = object.Get("valueHeadLearningRate");
  const double head_rate = head.IsUndefined() ? rate : number_of(head, "valueHeadLearningRate");
  return {rate, most, head_rate, flag_of(object.Get("valueHeadOnly"))};
}

LearnerOptions read_learner_options(const Napi::Object& object) {
  const auto number = [&](const char* name) { return number_of(object.Get(name), name); };
  const double budget = number("activationBudget");
  const LearnerOptions options = {.beta1 = number("beta1"),
                                  .beta2 = number("beta2"),
                                  .epsilon = number("epsilon"),
                                  .weight_decay = number("weightDecay"),
                                  .activation_budget = budget < 1e18 ? int64_t(budget) : int64_t(1e18),
                                  .value_head = flag_of(object.Get("valueHead"))};
  const bool betas = options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1;
  if (!betas || !(options.epsilon > 0) || !(options.weight_decay >= 0) || options.activation_budget < 0) {
    refuse(object.Env(),
           "Expected betas from 0 to below 1, an epsilon above 0, a weightDecay and an activationBudget of "
           "at least 0");
  }
  return options;
}

}  // namespace ssrl
