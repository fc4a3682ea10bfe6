// createLearner of lib/native.ts and the NativeLearner it makes. A learner does not keep its policy alive:
// whoever uses both does.
#include "engine/learner.h"

#include <atomic>

#include "addon/arguments.h"
#include "addon/async.h"
#include "addon/bindings.h"
#include "addon/policy.h"

namespace ssrl {
namespace {

struct LearnerState {
  std::shared_ptr<PolicyState> policy;
  std::unique_ptr<Learner> learner;  // compute thread
  std::atomic<int64_t> steps{0};     // for the JS thread
};

// What a micro-batch is on its way to the compute thread: copies, since JavaScript may change or transfer its
// arrays.
struct BatchCopy {
  std::vector<int32_t> tokens, offsets;
  std::vector<float> weights, advantages, old_log_probs, reference_log_probs, drift_weights, returns,
      old_values;
  bool has_advantages = false, has_old = false, has_reference = false, has_drift = false;
  bool has_returns = false, has_old_values = false;
  bool sequence_ratio = false;

  LearnerBatch view() const {
    const auto optional = [](bool given, const std::vector<float>& values) {
      return given ? values.data() : nullptr;
    };
    return {.sequences = {tokens.data(), offsets.data(), int64_t(offsets.size()) - 1},
            .weights = weights.data(),
            .advantages = optional(has_advantages, advantages),
            .old_log_probs = optional(has_old, old_log_probs),
            .reference_log_probs = optional(has_reference, reference_log_probs),
            .drift_weights = optional(has_drift, drift_weights),
            .sequence_ratio = sequence_ratio,
            .returns = optional(has_returns, returns),
            .old_values = optional(has_old_values, old_values)};
  }
};

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

BatchCopy read_batch(const Napi::Object& object, const ModelConfig& config) {
  BatchCopy batch;
  batch.tokens = int32_array_of(object.Get("tokens"), "tokens");
  batch.offsets = int32_array_of(object.Get("offsets"), "offsets");
  if (batch.offsets.empty()) refuse(object.Env(), "Expected at least one offset but received none");
  const int64_t sequences = int64_t(batch.offsets.size()) - 1;
  throw_if_error(object.Env(), check_sequences(config, {batch.tokens.data(), batch.offsets.data(), sequences},
                                               int64_t(batch.tokens.size())));
  const size_t values = batch.tokens.size() - size_t(sequences);
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

Napi::Value statistics_to_js(Napi::Env env, const LearnerStatistics& statistics) {
  const ops::PolicyLossStatistics& s = statistics.loss.policy;
  const ValueLossStatistics& v = statistics.loss.value;
  Napi::Object result = Napi::Object::New(env);
  const std::pair<const char*, double> numbers[] = {{"loss", s.loss},
                                                    {"policyLoss", s.policy_loss},
                                                    {"klSum", s.kl},
                                                    {"entropySum", s.entropy},
                                                    {"ratioSum", s.ratio},
                                                    {"ratioMax", s.ratio_max},
                                                    {"mismatch", s.mismatch},
                                                    {"clipLow", double(s.clip_low)},
                                                    {"clipHigh", double(s.clip_high)},
                                                    {"rows", double(s.rows)},
                                                    {"valueLoss", v.loss},
                                                    {"valueSum", v.value},
                                                    {"valueClipped", double(v.clipped)}};
  for (const auto& [name, value] : numbers) result.Set(name, Napi::Number::New(env, value));
  result.Set("logProbs", to_float32_array(env, statistics.log_probs));
  return result;
}

class LearnerObject : public Napi::ObjectWrap<LearnerObject> {
 public:
  explicit LearnerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LearnerObject>(info) {
    if (!info[0].IsExternal()) refuse(info.Env(), "Learners are made by createLearner()");
    state_ = *info[0].As<Napi::External<std::shared_ptr<LearnerState>>>().Data();
  }

  static void define(Napi::Env env) {
    Environment::of(env)->constructors["Learner"] = Napi::Persistent(DefineClass(
        env, "Learner",
        {InstanceMethod("accumulate", &LearnerObject::accumulate),
         InstanceMethod("readGradient", &LearnerObject::read_gradient),
         InstanceMethod("zeroGradients", &LearnerObject::zero_gradients),
         InstanceMethod("step", &LearnerObject::step), InstanceMethod("values", &LearnerObject::values),
         InstanceMethod("readValueHead", &LearnerObject::read_value_head),
         InstanceMethod("writeValueHead", &LearnerObject::write_value_head),
         InstanceMethod("saveState", &LearnerObject::save_state),
         InstanceMethod("loadState", &LearnerObject::load_state),
         InstanceAccessor("steps", &LearnerObject::steps, nullptr),
         InstanceMethod("dispose", &LearnerObject::dispose)}));
  }

 private:
  std::shared_ptr<LearnerState> state(const Napi::CallbackInfo& info) {
    if (!state_) throw to_error(info.Env(), {Code::kDisposed, "The learner has been disposed of"});
    return state_;
  }

  // Runs `work`, which takes (Learner&, const AbortFlag*) and perhaps the PolicyState&, on the compute
  // thread.
  template <typename T, typename Work, typename Finish>
  Napi::Value run(const Napi::CallbackInfo& info, AsyncOptions options, Work work, Finish finish) {
    auto s = state(info);
    return run_on_policy<T>(
        Value(), s->policy, std::move(options),
        [s, work = std::move(work)](PolicyState& policy, const AbortFlag* abort) -> Result<T> {
          Result<T> result = call(work, *s->learner, abort, policy);
          s->steps = s->learner->steps();
          return result;
        },
        std::move(finish));
  }
  template <typename Work>
  static auto call(const Work& work, Learner& learner, const AbortFlag* abort, PolicyState& policy) {
    if constexpr (std::is_invocable_v<const Work&, Learner&, const AbortFlag*, PolicyState&>) {
      return work(learner, abort, policy);
    } else {
      return work(learner, abort);
    }
  }
  template <typename Work>
  Napi::Value run(const Napi::CallbackInfo& info, Work work) {
    return run<Done>(
        info, {},
        [work = std::move(work)](Learner& learner, const AbortFlag*) -> Result<Done> {
          SSRL_RETURN_IF_ERROR(work(learner));
          return Done();
        },
        [](Napi::Env env, Done&) { return env.Undefined(); });
  }

  Napi::Value accumulate(const Napi::CallbackInfo& info) {
    auto batch = std::make_shared<const BatchCopy>(
        read_batch(object_of(info[0], "batch"), state(info)->policy->config));
    const PassLoss loss = read_loss(object_of(info[1], "loss"), *batch);
    return run<LearnerStatistics>(
        info, {.abort = abort_flag_of(info[2])},
        [batch, loss](Learner& learner, const AbortFlag* abort) {
          return learner.accumulate(batch->view(), loss, abort);
        },
        statistics_to_js);
  }

  Napi::Value read_gradient(const Napi::CallbackInfo& info) {
    return run<std::vector<float>>(
        info, {},
        [name = string_of(info[0], "name")](Learner& learner, const AbortFlag*) {
          return learner.read_gradient(name);
        },
        [](Napi::Env env, std::vector<float>& values) { return to_float32_array(env, values); });
  }

  Napi::Value zero_gradients(const Napi::CallbackInfo& info) {
    return run(info, [](Learner& learner) { return learner.zero_gradients(); });
  }

  Napi::Value step(const Napi::CallbackInfo& info) {
    const Napi::Object options = object_of(info[0], "options");
    const double rate = number_of(options.Get("learningRate"), "learningRate");
    const Napi::Value most_value = options.Get("maxGradNorm");
    const double most = most_value.IsNumber() ? most_value.As<Napi::Number>().DoubleValue() : 0;
    if (!(rate >= 0) || !(most > 0)) {
      refuse(info.Env(),
             "Expected a learningRate of at least 0 and a maxGradNorm above 0 (Infinity: no clipping)");
    }
    const StepOptions step{rate, most, flag_of(options.Get("valueHeadOnly"))};
    return run<double>(
        info, {},
        [step](Learner& learner, const AbortFlag*) -> Result<double> {
          double norm = 0;
          SSRL_RETURN_IF_ERROR(learner.step(step, &norm));
          return norm;
        },
        [](Napi::Env env, double norm) -> Napi::Value {
          Napi::Object result = Napi::Object::New(env);
          result.Set("gradNorm", norm);
          return result;
        });
  }

  // values(tokens, offsets, abort)
  Napi::Value values(const Napi::CallbackInfo& info) {
    auto batch = std::make_shared<BatchCopy>();
    batch->tokens = int32_array_of(info[0], "tokens");
    batch->offsets = int32_array_of(info[1], "offsets");
    if (batch->offsets.empty()) refuse(info.Env(), "Expected at least one offset but received none");
    const Sequences sequences = batch->view().sequences;
    throw_if_error(info.Env(),
                   check_sequences(state(info)->policy->config, sequences, int64_t(batch->tokens.size())));
    return run<std::vector<float>>(
        info, {.abort = abort_flag_of(info[2])},
        [batch](Learner& learner, const AbortFlag* abort, PolicyState& policy) -> Result<std::vector<float>> {
          if (learner.value_head() == nullptr) return invalid_arg("Expected a learner with a value head");
          return state_values(*policy.model, policy.workspace, *learner.value_head(), batch->view().sequences,
                              abort);
        },
        [](Napi::Env env, std::vector<float>& values) { return to_float32_array(env, values); });
  }

  Napi::Value read_value_head(const Napi::CallbackInfo& info) {
    return run<std::vector<float>>(
        info, {},
        [](Learner& learner, const AbortFlag*) -> Result<std::vector<float>> {
          ValueHead* head = learner.value_head();
          if (head == nullptr) return invalid_arg("Expected a learner with a value head");
          return head->read(head->weight());
        },
        [](Napi::Env env, std::vector<float>& values) { return to_float32_array(env, values); });
  }

  Napi::Value write_value_head(const Napi::CallbackInfo& info) {
    return run(info, [values = float32_array_of(info[0], "values")](Learner& learner) -> Status {
      ValueHead* head = learner.value_head();
      if (head == nullptr || int64_t(values.size()) != head->width()) {
        return invalid_arg("Expected one value a hidden unit, and a learner with a value head");
      }
      SSRL_RETURN_IF_ERROR(head->write(head->weight(), values));
      return head->repack();
    });
  }

  Napi::Value save_state(const Napi::CallbackInfo& info) {
    return run(info,
               [path = string_of(info[0], "path")](Learner& learner) { return learner.save_state(path); });
  }
  Napi::Value load_state(const Napi::CallbackInfo& info) {
    return run(info,
               [path = string_of(info[0], "path")](Learner& learner) { return learner.load_state(path); });
  }

  Napi::Value steps(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), double(state(info)->steps.load()));
  }
  // Work that is under way holds the state until it ends.
  void dispose(const Napi::CallbackInfo&) { state_.reset(); }

  std::shared_ptr<LearnerState> state_;
};

LearnerOptions read_options(const Napi::Object& object) {
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

Napi::Value create_learner(const Napi::CallbackInfo& info) {
  auto state = std::make_shared<LearnerState>();
  state->policy = policy_state_of(info[0]);
  const Napi::Object policy = info[0].As<Napi::Object>();
  return run_on_policy<Done>(
      policy, state->policy, {},
      [state, options = read_options(object_of(info[1], "options"))](PolicyState& owner,
                                                                     const AbortFlag*) -> Result<Done> {
        auto learner = Learner::create(*owner.model, options);
        if (!learner.ok()) return learner.status();
        state->learner = std::move(learner.value());
        return Done();
      },
      [state](Napi::Env env, Done&) -> Napi::Value {
        auto shared = state;
        return Environment::of(env)->constructors["Learner"].New(
            {Napi::External<std::shared_ptr<LearnerState>>::New(env, &shared)});
      });
}

}  // namespace

void init_learner(Napi::Env env, Napi::Object exports) {
  LearnerObject::define(env);
  exports.Set("createLearner", Napi::Function::New(env, create_learner));
}

}  // namespace ssrl
