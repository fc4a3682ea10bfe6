// createLearner of lib/native.ts and the NativeLearner it makes.
#include "engine/learner.h"

#include <cstring>

#include "addon/async.h"
#include "addon/bindings.h"
#include "addon/policy.h"

namespace ssrl {
namespace {

struct LearnerState {
  std::shared_ptr<PolicyState> policy;  // outlives the learner, whose model it holds
  std::unique_ptr<Learner> learner;     // compute thread
  std::atomic<int64_t> steps{0};        // for the JS thread
};

// What a micro-batch is on its way to the compute thread: copies, since JavaScript may change or transfer its
// arrays.
struct BatchCopy {
  std::vector<int32_t> tokens, offsets;
  std::vector<float> weights, advantages, old_log_probs, reference_log_probs;
  bool has_advantages = false, has_old = false, has_reference = false;
};

[[noreturn]] void refuse(Napi::Env env, const std::string& message) {
  throw to_error(env, invalid_arg(message));
}

Napi::Object object_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsObject()) refuse(info.Env(), std::string("Expected an object for ") + name);
  return info[index].As<Napi::Object>();
}

double number_field(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) refuse(object.Env(), std::string("Expected a number for ") + name);
  return value.As<Napi::Number>().DoubleValue();
}

template <typename T>
std::vector<T> array_field(const Napi::Object& object, const char* name, napi_typedarray_type type,
                           const char* type_name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    refuse(object.Env(), std::string("Expected ") + type_name + " for " + name);
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  return std::vector<T>(array.Data(), array.Data() + array.ElementLength());
}

// False for null; the array's length must be `count`.
bool floats_field(const Napi::Object& object, const char* name, size_t count, bool required,
                  std::vector<float>* out) {
  if (!required && (object.Get(name).IsNull() || object.Get(name).IsUndefined())) return false;
  *out = array_field<float>(object, name, napi_float32_array, "a Float32Array");
  if (out->size() == count) return true;
  refuse(object.Env(), "Expected " + std::to_string(count) + " values for " + name + " but received " +
                           std::to_string(out->size()));
}

BatchCopy read_batch(const Napi::Object& object, const ModelConfig& config) {
  BatchCopy batch;
  batch.tokens = array_field<int32_t>(object, "tokens", napi_int32_array, "an Int32Array");
  batch.offsets = array_field<int32_t>(object, "offsets", napi_int32_array, "an Int32Array");
  if (batch.offsets.empty()) refuse(object.Env(), "Expected at least one offset but received none");
  const int64_t sequences = int64_t(batch.offsets.size()) - 1;
  throw_if_error(object.Env(), check_sequences(config, {batch.tokens.data(), batch.offsets.data(), sequences},
                                               int64_t(batch.tokens.size())));
  const size_t values = batch.tokens.size() - size_t(sequences);
  floats_field(object, "weights", values, true, &batch.weights);
  batch.has_advantages = floats_field(object, "advantages", values, false, &batch.advantages);
  batch.has_old = floats_field(object, "oldLogProbs", values, false, &batch.old_log_probs);
  batch.has_reference = floats_field(object, "referenceLogProbs", values, false, &batch.reference_log_probs);
  return batch;
}

ops::PolicyLossOptions read_loss(const Napi::Object& object, const BatchCopy& batch) {
  const Napi::Value type = object.Get("type");
  const std::string name = type.IsString() ? type.As<Napi::String>().Utf8Value() : "";
  if (name != "sft" && name != "policy-gradient") {
    refuse(object.Env(), "Expected 'sft' or 'policy-gradient' for type");
  }
  const ops::PolicyLossOptions loss = {
      .type = name == "sft" ? ops::LossType::kSft : ops::LossType::kPolicyGradient,
      .temperature = float(number_field(object, "temperature")),
      .epsilon = float(number_field(object, "epsilon")),
      .epsilon_high = float(number_field(object, "epsilonHigh")),
      .dual_clip = float(number_field(object, "dualClip")),
      .beta = float(number_field(object, "beta"))};
  if (!(loss.temperature > 0)) refuse(object.Env(), "Expected a temperature above 0");
  if (loss.type == ops::LossType::kPolicyGradient) {
    if (!batch.has_advantages) refuse(object.Env(), "Expected advantages for a policy-gradient loss");
    if (loss.beta != 0 && !batch.has_reference) {
      refuse(object.Env(), "Expected referenceLogProbs, as beta is not 0");
    }
  }
  return loss;
}

Napi::Value to_float32_array(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

Napi::Value statistics_to_js(Napi::Env env, const LearnerStatistics& statistics) {
  const ops::PolicyLossStatistics& s = statistics.loss;
  Napi::Object result = Napi::Object::New(env);
  const std::pair<const char*, double> numbers[] = {
      {"loss", s.loss},          {"policyLoss", s.policy_loss},   {"klSum", s.kl},
      {"entropySum", s.entropy}, {"ratioSum", s.ratio},           {"ratioMax", s.ratio_max},
      {"mismatch", s.mismatch},  {"clipLow", double(s.clip_low)}, {"clipHigh", double(s.clip_high)},
      {"rows", double(s.rows)}};
  for (const auto& [name, value] : numbers) result.Set(name, Napi::Number::New(env, value));
  result.Set("logProbs", to_float32_array(env, statistics.log_probs));
  return result;
}

class LearnerHandle : public Napi::ObjectWrap<LearnerHandle> {
 public:
  explicit LearnerHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LearnerHandle>(info) {
    if (!info[0].IsExternal()) refuse(info.Env(), "Learners are made by createLearner()");
    state_ = *info[0].As<Napi::External<std::shared_ptr<LearnerState>>>().Data();
  }

  static void define(Napi::Env env) {
    Environment::of(env)->constructors["Learner"] =
        Napi::Persistent(DefineClass(env, "Learner",
                                     {InstanceMethod("accumulate", &LearnerHandle::accumulate),
                                      InstanceMethod("readGradient", &LearnerHandle::read_gradient),
                                      InstanceMethod("zeroGradients", &LearnerHandle::zero_gradients),
                                      InstanceMethod("step", &LearnerHandle::step),
                                      InstanceMethod("saveState", &LearnerHandle::save_state),
                                      InstanceMethod("loadState", &LearnerHandle::load_state),
                                      InstanceAccessor("steps", &LearnerHandle::steps, nullptr),
                                      InstanceMethod("dispose", &LearnerHandle::dispose)}));
  }

 private:
  std::shared_ptr<LearnerState> state(const Napi::CallbackInfo& info) {
    if (!state_) throw to_error(info.Env(), {Code::kDisposed, "The learner has been disposed of"});
    return state_;
  }
  static AsyncOptions options_of(const LearnerState& state) { return {.threads = state.policy->threads}; }

  // Work without a result.
  Napi::Value run(const Napi::CallbackInfo& info, std::function<Status(LearnerState&)> work) {
    auto s = state(info);
    return run_job(
        info.Env(), options_of(*s), [s, work = std::move(work)](const AbortFlag*) { return work(*s); },
        [](Napi::Env env) { return env.Undefined(); });
  }

  Napi::Value accumulate(const Napi::CallbackInfo& info) {
    auto s = state(info);
    auto batch = std::make_shared<const BatchCopy>(
        read_batch(object_argument(info, 0, "batch"), s->policy->model->config()));
    const ops::PolicyLossOptions loss = read_loss(object_argument(info, 1, "loss"), *batch);
    AsyncOptions options = options_of(*s);
    options.abort = abort_flag_of(info[2]);
    return run_async<LearnerStatistics>(
        info.Env(), options,
        [s, batch, loss](const AbortFlag* abort) {
          const auto optional = [](bool given, const std::vector<float>& values) {
            return given ? values.data() : nullptr;
          };
          return s->learner->accumulate(
              {.sequences = {batch->tokens.data(), batch->offsets.data(), int64_t(batch->offsets.size()) - 1},
               .weights = batch->weights.data(),
               .advantages = optional(batch->has_advantages, batch->advantages),
               .old_log_probs = optional(batch->has_old, batch->old_log_probs),
               .reference_log_probs = optional(batch->has_reference, batch->reference_log_probs)},
              loss, abort);
        },
        statistics_to_js);
  }

  Napi::Value read_gradient(const Napi::CallbackInfo& info) {
    auto s = state(info);
    if (!info[0].IsString()) refuse(info.Env(), "Expected the name of a parameter");
    const auto found = s->policy->model->find(info[0].As<Napi::String>().Utf8Value());
    throw_if_error(info.Env(), found.status());
    const Parameter* parameter = found.value();
    return run_async<std::vector<float>>(
        info.Env(), options_of(*s),
        [s, parameter]() -> Result<std::vector<float>> {
          std::vector<float> values(size_t(parameter->count));
          const Status status = s->learner->read_gradient(*parameter, values.data());
          if (!status.ok()) return status;
          return values;
        },
        [](Napi::Env env, std::vector<float>& values) { return to_float32_array(env, values); });
  }

  Napi::Value zero_gradients(const Napi::CallbackInfo& info) {
    return run(info, [](LearnerState& s) { return s.learner->zero_gradients(); });
  }

  Napi::Value step(const Napi::CallbackInfo& info) {
    auto s = state(info);
    const Napi::Object options = object_argument(info, 0, "options");
    const double rate = number_field(options, "learningRate"), most = number_field(options, "maxGradNorm");
    if (!(rate >= 0) || !(most > 0)) {
      refuse(info.Env(), "Expected a learningRate of at least 0 and a maxGradNorm above 0");
    }
    return run_async<double>(
        info.Env(), options_of(*s),
        [s, rate, most]() -> Result<double> {
          double norm = 0;
          const Status status = s->learner->step(float(rate), float(most), &norm);
          s->steps = s->learner->steps();
          if (!status.ok()) return status;
          return norm;
        },
        [](Napi::Env env, double norm) -> Napi::Value {
          Napi::Object result = Napi::Object::New(env);
          result.Set("gradNorm", norm);
          return result;
        });
  }

  std::string path_argument(const Napi::CallbackInfo& info) {
    if (!info[0].IsString()) refuse(info.Env(), "Expected a path");
    return info[0].As<Napi::String>().Utf8Value();
  }
  Napi::Value save_state(const Napi::CallbackInfo& info) {
    return run(info, [path = path_argument(info)](LearnerState& s) { return s.learner->save_state(path); });
  }
  Napi::Value load_state(const Napi::CallbackInfo& info) {
    return run(info, [path = path_argument(info)](LearnerState& s) {
      const Status status = s.learner->load_state(path);
      s.steps = s.learner->steps();
      return status;
    });
  }

  Napi::Value steps(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), double(state(info)->steps.load()));
  }
  // Work that is under way holds the state until it ends.
  void dispose(const Napi::CallbackInfo&) { state_.reset(); }

  std::shared_ptr<LearnerState> state_;
};

Napi::Value create_learner(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto state = std::make_shared<LearnerState>();
  state->policy = policy_state_of(info[0]);
  const Napi::Object object = object_argument(info, 1, "options");
  const LearnerOptions options = {.beta1 = float(number_field(object, "beta1")),
                                  .beta2 = float(number_field(object, "beta2")),
                                  .epsilon = float(number_field(object, "epsilon")),
                                  .weight_decay = float(number_field(object, "weightDecay")),
                                  .activation_budget = int64_t(number_field(object, "activationBudget"))};
  const bool betas = options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1;
  if (!betas || !(options.epsilon > 0) || !(options.weight_decay >= 0) || options.activation_budget < 0) {
    refuse(
        env,
        "Expected betas from 0 to below 1, an epsilon above 0, a weightDecay and an activationBudget of at "
        "least 0");
  }
  return run_job(
      env, {.threads = state->policy->threads},
      [state, options](const AbortFlag*) {
        auto learner = Learner::create(state->policy->model, options);
        if (learner.ok()) state->learner = std::move(learner.value());
        return learner.status();
      },
      [state](Napi::Env env) -> Napi::Value {
        auto held = state;
        return Environment::of(env)->constructors["Learner"].New(
            {Napi::External<std::shared_ptr<LearnerState>>::New(env, &held)});
      });
}

}  // namespace

void init_learner(Napi::Env env, Napi::Object exports) {
  LearnerHandle::define(env);
  exports.Set("createLearner", Napi::Function::New(env, create_learner));
}

}  // namespace ssrl
