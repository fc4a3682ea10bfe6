#include "addon/async.h"

#include <exception>
#include <new>
#include <utility>

namespace ssrl {
namespace {

struct InstanceData {
  std::shared_ptr<Environment> environment;
};

// Created by createAbortToken(): one flag that several calls may look at.
class AbortToken : public Napi::ObjectWrap<AbortToken> {
 public:
  explicit AbortToken(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AbortToken>(info) {}
  void abort(const Napi::CallbackInfo&) { flag_->raise(); }
  const std::shared_ptr<AbortFlag>& flag() const { return flag_; }

 private:
  std::shared_ptr<AbortFlag> flag_ = std::make_shared<AbortFlag>();
};

}  // namespace

void Environment::init(Napi::Env env) {
  auto environment = std::make_shared<Environment>();
  napi_value name = Napi::String::New(env, "ssrl");
  napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, environment.get(),
                                      &Environment::deliver, &environment->wake_);
  if (status != napi_ok) throw Napi::Error::New(env, "ssrl could not create its channel to the event loop");
  napi_unref_threadsafe_function(env, environment->wake_);
  env.SetInstanceData(new InstanceData{environment});
  // Hooks run last to first: this one before the channel's own.
  env.AddCleanupHook([environment] { environment->close(); });
}

std::shared_ptr<Environment> Environment::of(Napi::Env env) {
  return env.GetInstanceData<InstanceData>()->environment;
}

void Environment::post(Task task) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!alive_) return;
  tasks_.push_back(std::move(task));
  if (tasks_.size() == 1) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Environment::deliver(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // the environment is closing
  auto environment = static_cast<Environment*>(context)->shared_from_this();
  std::vector<Task> tasks;
  {
    std::lock_guard<std::mutex> lock(environment->mutex_);
    tasks.swap(environment->tasks_);
  }
  for (Task& task : tasks) {
    Napi::HandleScope scope(env);
    try {
      task(Napi::Env(env));
    } catch (const Napi::Error& error) {
      napi_fatal_exception(env, error.Value());
    } catch (const std::exception& error) {
      napi_fatal_exception(env, Napi::Error::New(env, error.what()).Value());
    }
  }
}

void Environment::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    alive_ = false;
    tasks_.clear();
  }
  for (auto& entry : pending_) entry.second.abort->raise();
  ComputeThread::instance().cancel(this);
  pending_.clear();
  constructors.clear();
}

void Environment::settle(Napi::Env env, uint64_t id, const Status& status,
                         const std::function<Napi::Value(Napi::Env)>& make) {
  auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending_.empty()) napi_unref_threadsafe_function(env, wake_);
  Status outcome = status;
  if (outcome.ok()) {
    try {
      pending.deferred.Resolve(make(env));
      return;
    } catch (const Napi::Error& error) {
      pending.deferred.Reject(error.Value());
      return;
    } catch (const std::exception& error) {
      outcome = {Code::kInternal, std::string("Unexpected failure in native code: ") + error.what()};
    }
  }
  Napi::Object error = pending.error.Value();
  error.Set("message", outcome.message());
  error.Set("code", code_name(outcome.code()));
  pending.deferred.Reject(error);
}

std::shared_ptr<Settler> Settler::open(Napi::Env env, const AsyncOptions& options, Napi::Value* promise) {
  auto settler = std::make_shared<Settler>();
  settler->environment_ = Environment::of(env);
  settler->abort_ = options.abort ? options.abort : std::make_shared<AbortFlag>();
  Environment& environment = *settler->environment_;
  settler->id_ = environment.next_++;
  Environment::Pending pending{Napi::Promise::Deferred::New(env), {}, {}, {}, settler->abort_};
  pending.error = Napi::Persistent(Napi::Error::New(env, "").Value());
  for (const Napi::Value& value : options.keep) {
    if (value.IsObject()) pending.kept.push_back(Napi::Persistent(value.As<Napi::Object>()));
  }
  for (const Napi::Value& value : options.callbacks) {
    pending.callbacks.push_back(value.IsFunction() ? Napi::Persistent(value.As<Napi::Function>())
                                                   : Napi::FunctionReference());
  }
  *promise = pending.deferred.Promise();
  if (environment.pending_.empty()) napi_ref_threadsafe_function(env, environment.wake_);
  environment.pending_.emplace(settler->id_, std::move(pending));
  return settler;
}

void Settler::resolve(std::function<Napi::Value(Napi::Env)> make) {
  std::weak_ptr<Environment> weak = environment_;
  environment_->post([weak, id = id_, make = std::move(make)](Napi::Env env) {
    if (auto environment = weak.lock()) environment->settle(env, id, Status(), make);
  });
}

void Settler::reject(Status status) {
  std::weak_ptr<Environment> weak = environment_;
  environment_->post([weak, id = id_, status = std::move(status)](Napi::Env env) {
    if (auto environment = weak.lock()) environment->settle(env, id, status, {});
  });
}

void Settler::call(size_t index, std::function<std::vector<napi_value>(Napi::Env)> make_arguments) {
  std::weak_ptr<Environment> weak = environment_;
  environment_->post([weak, id = id_, index, make = std::move(make_arguments)](Napi::Env env) {
    auto environment = weak.lock();
    if (!environment) return;
    auto found = environment->pending_.find(id);
    if (found == environment->pending_.end()) return;
    Napi::FunctionReference& callback = found->second.callbacks[index];
    if (!callback.IsEmpty()) callback.Value().Call(make(env));
  });
}

void post_or_reject(const std::shared_ptr<Settler>& settler, int threads, std::function<void()> job) {
  Status status = ComputeThread::instance().post({settler->owner(), threads, std::move(job)});
  if (!status.ok()) settler->reject(std::move(status));
}

Status run_guarded(const AbortFlag* abort, const std::function<Status()>& work) {
  try {
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    return work();
  } catch (const std::bad_alloc&) {
    return {Code::kOutOfMemory,
            "Expected enough memory for this call but an allocation failed; free some memory"};
  } catch (const std::exception& error) {
    return {Code::kInternal, std::string("Unexpected failure in native code: ") + error.what()};
  }
}

std::shared_ptr<AbortFlag> abort_flag_of(Napi::Value token) {
  if (token.IsNull() || token.IsUndefined()) return nullptr;
  auto& constructor = Environment::of(token.Env())->constructors["AbortToken"];
  if (!token.IsObject() || !token.As<Napi::Object>().InstanceOf(constructor.Value())) {
    throw to_error(token.Env(), invalid_arg("Expected a token of createAbortToken() or null for abort"));
  }
  return AbortToken::Unwrap(token.As<Napi::Object>())->flag();
}

void init_async(Napi::Env env, Napi::Object exports) {
  Environment::init(env);
  Napi::Function constructor =
      AbortToken::DefineClass(env, "AbortToken", {AbortToken::InstanceMethod("abort", &AbortToken::abort)});
  Environment::of(env)->constructors["AbortToken"] = Napi::Persistent(constructor);
  exports.Set("createAbortToken", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                return Environment::of(info.Env())->constructors["AbortToken"].New({});
              }));
  exports.Set("shutdown", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                ComputeThread::instance().shutdown();
              }));
}

}  // namespace ssrl
