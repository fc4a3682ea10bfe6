// A policy behind a JavaScript object: its model, its generator, and the rules of disposal.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "abort.h"
#include "addon/async.h"
#include "engine/generator.h"
#include "engine/model.h"
#include "engine/transformer.h"

namespace ssrl {

// Shared by the JS object, its sessions, its learners and the jobs. The model and what works on it belong to
// the compute thread, and are gone after dispose(); what is const may be read anywhere.
class PolicyState : public std::enable_shared_from_this<PolicyState> {
 public:
  PolicyState(std::shared_ptr<Model> model, int threads, bool exact);

  const ModelConfig config;
  const DType compute;
  const int threads;
  const bool exact;

  // Compute thread. Model and generator are null after disposal.
  std::shared_ptr<Model> model;
  Workspace workspace;
  std::unique_ptr<Generator> generator;

  bool disposed() const { return disposed_.load(); }
  // kDisposed once dispose() has been called. Jobs ask again, as they may have waited behind a disposal.
  Status check() const;

  // JS thread. Stops what works on this policy at its next look at its flag.
  void dispose();
  // Compute thread: gives all memory back.
  void free();
  // The flag is raised by dispose(), too. JS thread.
  void watch(const std::shared_ptr<AbortFlag>& flag);

  // Compute thread. Lets the generator work, one step a job, until it has nothing left to do.
  void post_step(const void* owner);

 private:
  std::atomic<bool> disposed_{false};
  bool step_posted_ = false;
  std::vector<std::weak_ptr<AbortFlag>> flags_;
};

// The state behind a NativePolicy; throws ERR_INVALID_ARG for other values, and ERR_DISPOSED. JS thread.
std::shared_ptr<PolicyState> policy_state_of(const Napi::Value& value);

// Makes the JS object around a state. JS thread.
Napi::Object wrap_policy(Napi::Env env, std::shared_ptr<PolicyState> state);

// run_async on a policy: its threads, ERR_DISPOSED before and after waiting, stopped by its disposal. `self`
// is the JS object, kept alive until the end. `work` takes (PolicyState&, const AbortFlag*).
template <typename T, typename Work, typename Finish>
Napi::Value run_on_policy(const Napi::Object& self, std::shared_ptr<PolicyState> state, AsyncOptions options,
                          Work work, Finish finish) {
  throw_if_error(self.Env(), state->check());
  options.threads = state->threads;
  options.keep.push_back(self);
  if (!options.abort) options.abort = std::make_shared<AbortFlag>();
  state->watch(options.abort);
  return run_async<T>(
      self.Env(), options,
      [state, work = std::move(work)](const AbortFlag* abort) mutable -> Result<T> {
        SSRL_RETURN_IF_ERROR(state->check());
        return work(*state, abort);
      },
      std::move(finish));
}

// For work that returns a Status.
struct Done {};

class PolicyObject : public Napi::ObjectWrap<PolicyObject> {
 public:
  static void define(Napi::Env env);
  explicit PolicyObject(const Napi::CallbackInfo& info);
  ~PolicyObject() override;
  const std::shared_ptr<PolicyState>& state() const { return state_; }

 private:
  // policy.cc
  Napi::Value parameters(const Napi::CallbackInfo& info);
  Napi::Value read_parameter(const Napi::CallbackInfo& info);
  Napi::Value write_parameter(const Napi::CallbackInfo& info);
  Napi::Value score(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value clone(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value exact(const Napi::CallbackInfo& info);
  Napi::Value dtype(const Napi::CallbackInfo& info);
  Napi::Value threads(const Napi::CallbackInfo& info);
  // policy_save.cc
  Napi::Value write_safetensors(const Napi::CallbackInfo& info);
  Napi::Value write_gguf(const Napi::CallbackInfo& info);
  // generator.cc
  void set_token_bytes(const Napi::CallbackInfo& info);
  void set_cache_budget(const Napi::CallbackInfo& info);
  Napi::Value generate(const Napi::CallbackInfo& info);
  Napi::Value statistics(const Napi::CallbackInfo& info);
  // session.cc
  Napi::Value open_session(const Napi::CallbackInfo& info);

  void post(std::function<void(PolicyState&)> work);

  std::shared_ptr<PolicyState> state_;
  const void* owner_;
};

// generator.cc, for sessions
SamplingSettings sampling_of(const Napi::Object& request);
Napi::Object completion_to_js(Napi::Env env, const Completion& completion);
// Opens a promise for the call, sets its functions, and posts it to the generator.
Napi::Value start_call(const Napi::Object& self, std::shared_ptr<PolicyState> state,
                       std::shared_ptr<GenerateCall> call, AsyncOptions options,
                       std::function<Napi::Value(Napi::Env, std::vector<Completion>&)> finish);

// session.cc
void define_session(Napi::Env env);

}  // namespace ssrl
