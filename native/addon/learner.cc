// createLearner of lib/native.ts and the NativeLearner it makes. A learner does not keep its policy alive:
// whoever uses both does.
#include "engine/learner.h"

#include <atomic>

#include "addon/arguments.h"
#include "addon/async.h"
#include "addon/bindings.h"
#include "addon/learner_arguments.h"
#include "addon/policy.h"

namespace ssrl {
namespace {

struct LearnerState {
  std::shared_ptr<PolicyState> policy;
  std::unique_ptr<Learner> learner;  // compute thread
  std::atomic<int64_t> steps{0};     // for the JS thread
};

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
                                                    {"valueClipped", double(v.clipped)},
                                                    {"recomputed", statistics.recomputed}};
  for (const auto& [name, value] : numbers) result.Set(name, Napi::Number::New(env, value));
  result.Set("logProbs", to_float32_array(env, statistics.log_probs));
  return result;
}

class LearnerObject : public Napi::ObjectWrap<LearnerObject> {
 public:
  explicit LearnerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LearnerObject>(info) {
    if (!info[0].IsExternal()) {
      throw to_error(info.Env(), invalid_arg("Learners are made by createLearner()"));
    }
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
    const StepOptions step = read_step(object_of(info[0], "options"));
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
    auto batch =
        std::make_shared<const BatchCopy>(read_sequences(info[0], info[1], state(info)->policy->config));
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

Napi::Value create_learner(const Napi::CallbackInfo& info) {
  auto state = std::make_shared<LearnerState>();
  state->policy = policy_state_of(info[0]);
  const Napi::Object policy = info[0].As<Napi::Object>();
  return run_on_policy<Done>(
      policy, state->policy, {},
      [state, options = read_learner_options(object_of(info[1], "options"))](
          PolicyState& owner, const AbortFlag*) -> Result<Done> {
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
