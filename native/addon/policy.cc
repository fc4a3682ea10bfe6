// NativePolicy: weights in and out, scores, clones, disposal. Generation is in generator.cc.
#include "addon/policy.h"

#include <utility>

#include "addon/arguments.h"
#include "addon/bindings.h"
#include "engine/score.h"

namespace ssrl {
namespace {

Napi::Value undefined_of(Napi::Env env, Done&) {
  return env.Undefined();
}

Napi::Value floats_of(Napi::Env env, std::vector<float>& values) {
  return to_float32_array(env, values);
}

Result<std::vector<float>> read_parameter_of(PolicyState& state, const std::string& name) {
  auto found = state.model->find(name);
  if (!found.ok()) return found.status();
  std::vector<float> values(size_t(found.value()->count));
  SSRL_RETURN_IF_ERROR(state.model->read(*found.value(), values.data()));
  return values;
}

Result<Done> write_parameter_of(PolicyState& state, const std::string& name,
                                const std::vector<float>& values) {
  Model& model = *state.model;
  auto found = model.find(name);
  if (!found.ok()) return found.status();
  const Parameter& parameter = *found.value();
  if (int64_t(values.size()) != parameter.count) {
    return invalid_arg("Expected " + std::to_string(parameter.count) + " values for " + name +
                       " but received " + std::to_string(values.size()));
  }
  SSRL_RETURN_IF_ERROR(model.write(parameter, values.data()));
  return Done{};
}

Napi::Object parameter_to_js(Napi::Env env, const Parameter& parameter) {
  Napi::Array shape = Napi::Array::New(env, parameter.shape.size());
  for (uint32_t i = 0; i < parameter.shape.size(); ++i) {
    shape.Set(i, Napi::Number::New(env, double(parameter.shape[i])));
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("name", parameter.name);
  object.Set("shape", shape);
  return object;
}

}  // namespace

PolicyObject::PolicyObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<PolicyObject>(info), owner_(Environment::of(info.Env()).get()) {
  // Only wrap_policy() has such a pointer to give.
  if (!info[0].IsExternal()) throw_expected(info.Env(), "loadPolicy() to be called", "a policy", info[0]);
  state_ = std::move(*info[0].As<Napi::External<std::shared_ptr<PolicyState>>>().Data());
}

PolicyObject::~PolicyObject() {
  if (!state_ || state_->disposed()) return;
  state_->dispose();
  post([](PolicyState& state) { state.free(); });
}

void PolicyObject::post(std::function<void(PolicyState&)> work) {
  (void)ComputeThread::instance().post(
      {owner_, state_->threads, [state = state_, work = std::move(work)] { work(*state); }});
}

void PolicyObject::define(Napi::Env env) {
  Napi::Function constructor = DefineClass(
      env, "NativePolicy",
      {InstanceMethod("parameters", &PolicyObject::parameters),
       InstanceMethod("readParameter", &PolicyObject::read_parameter),
       InstanceMethod("writeParameter", &PolicyObject::write_parameter),
       InstanceMethod("score", &PolicyObject::score), InstanceMethod("logits", &PolicyObject::logits),
       InstanceMethod("clone", &PolicyObject::clone), InstanceMethod("dispose", &PolicyObject::dispose),
       InstanceMethod("writeSafetensors", &PolicyObject::write_safetensors),
       InstanceMethod("writeGguf", &PolicyObject::write_gguf),
       InstanceMethod("setTokenBytes", &PolicyObject::set_token_bytes),
       InstanceMethod("setCacheBudget", &PolicyObject::set_cache_budget),
       InstanceMethod("generate", &PolicyObject::generate),
       InstanceMethod("generatorStatistics", &PolicyObject::statistics),
       InstanceMethod("openSession", &PolicyObject::open_session),
       InstanceAccessor("exact", &PolicyObject::exact, nullptr),
       InstanceAccessor("dtype", &PolicyObject::dtype, nullptr),
       InstanceAccessor("threads", &PolicyObject::threads, nullptr)});
  Environment::of(env)->constructors["Policy"] = Napi::Persistent(constructor);
}

std::shared_ptr<PolicyState> policy_state_of(const Napi::Value& value) {
  auto& constructor = Environment::of(value.Env())->constructors["Policy"];
  if (!value.IsObject() || !value.As<Napi::Object>().InstanceOf(constructor.Value())) {
    throw_expected(value.Env(), "a policy of loadPolicy()", "policy", value);
  }
  auto state = PolicyObject::Unwrap(value.As<Napi::Object>())->state();
  throw_if_error(value.Env(), state->check());
  return state;
}

Napi::Object wrap_policy(Napi::Env env, std::shared_ptr<PolicyState> state) {
  auto external = Napi::External<std::shared_ptr<PolicyState>>::New(env, &state);
  return Environment::of(env)->constructors["Policy"].New({external});
}

Napi::Value PolicyObject::parameters(const Napi::CallbackInfo& info) {
  const Layout layout(state_->config);
  Napi::Array array = Napi::Array::New(info.Env(), layout.parameters.size());
  for (uint32_t i = 0; i < layout.parameters.size(); ++i) {
    array.Set(i, parameter_to_js(info.Env(), layout.parameters[i]));
  }
  return array;
}

Napi::Value PolicyObject::read_parameter(const Napi::CallbackInfo& info) {
  return run_on_policy<std::vector<float>>(
      Value(), state_, {},
      [name = string_of(info[0], "name")](PolicyState& state, const AbortFlag*) {
        return read_parameter_of(state, name);
      },
      floats_of);
}

Napi::Value PolicyObject::write_parameter(const Napi::CallbackInfo& info) {
  return run_on_policy<Done>(
      Value(), state_, {},
      [name = string_of(info[0], "name"), values = float32_array_of(info[1], "values")](
          PolicyState& state, const AbortFlag*) { return write_parameter_of(state, name, values); },
      undefined_of);
}

Napi::Value PolicyObject::score(const Napi::CallbackInfo& info) {
  auto tokens = int32_array_of(info[0], "tokens");
  auto offsets = int32_array_of(info[1], "offsets");
  const double temperature = number_of(info[2], "temperature");
  if (!(temperature > 0)) throw_expected(info.Env(), "a number above 0", "temperature", info[2]);
  if (offsets.empty()) throw_expected(info.Env(), "at least one value", "offsets", info[1]);
  return run_on_policy<Scores>(
      Value(), state_, {.abort = abort_flag_of(info[3])},
      [tokens = std::move(tokens), offsets = std::move(offsets), temperature](
          PolicyState& state, const AbortFlag* abort) -> Result<Scores> {
        const Sequences sequences{tokens.data(), offsets.data(), int64_t(offsets.size()) - 1};
        SSRL_RETURN_IF_ERROR(check_sequences(state.config, sequences, int64_t(tokens.size())));
        return ssrl::score(*state.model, state.workspace, sequences, float(temperature), abort);
      },
      [](Napi::Env env, Scores& scores) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("logProbs", to_float32_array(env, scores.log_probs));
        object.Set("entropies", to_float32_array(env, scores.entropies));
        return object;
      });
}

Napi::Value PolicyObject::logits(const Napi::CallbackInfo& info) {
  return run_on_policy<std::vector<float>>(
      Value(), state_, {},
      [tokens = int32_array_of(info[0], "tokens")](PolicyState& state,
                                                   const AbortFlag*) -> Result<std::vector<float>> {
        const int32_t offsets[] = {0, int32_t(tokens.size())};
        SSRL_RETURN_IF_ERROR(
            check_sequences(state.config, {tokens.data(), offsets, 1}, int64_t(tokens.size())));
        const size_t count = tokens.size() * size_t(state.config.vocabulary);
        SSRL_RETURN_IF_ERROR(check_memory(state.model->ops(), 2.0 * double(count) * sizeof(float), "logits"));
        std::vector<float> values(count);
        SSRL_RETURN_IF_ERROR(ssrl::logits(*state.model, state.workspace, tokens.data(),
                                          int64_t(tokens.size()), values.data()));
        return values;
      },
      floats_of);
}

Napi::Value PolicyObject::clone(const Napi::CallbackInfo& info) {
  return run_on_policy<std::shared_ptr<PolicyState>>(
      Value(), state_, {},
      [frozen = boolean_of(info[0], "frozen")](PolicyState& state,
                                               const AbortFlag*) -> Result<std::shared_ptr<PolicyState>> {
        Result<std::unique_ptr<Model>> model =
            frozen ? state.model->clone_frozen() : Result<std::unique_ptr<Model>>(state.model->clone());
        if (!model.ok()) return model.status();
        return std::make_shared<PolicyState>(std::move(model.value()), state.threads, state.exact);
      },
      [](Napi::Env env, std::shared_ptr<PolicyState>& state) -> Napi::Value {
        return wrap_policy(env, state);
      });
}

Napi::Value PolicyObject::dispose(const Napi::CallbackInfo& info) {
  // Disposing twice waits for the first.
  state_->dispose();
  return run_async<Done>(
      info.Env(), {.keep = {Value()}},
      [state = state_]() -> Result<Done> {
        state->free();
        return Done{};
      },
      undefined_of);
}

Napi::Value PolicyObject::exact(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), state_->exact);
}

Napi::Value PolicyObject::dtype(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), state_->compute == DType::kF32 ? "f32" : "bf16");
}

Napi::Value PolicyObject::threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), state_->threads);
}

}  // namespace ssrl
