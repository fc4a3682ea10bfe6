// Promises for work on the compute thread. Values are read into plain structs on the JS thread, the work sees
// only those, and the result becomes JS values on the JS thread again:
//
//   return run_async<std::vector<float>>(env, {.threads = 2, .keep = {array}},
//       [=] { return compute(data); },                                            // Result<T>, compute
//       thread
//       [](Napi::Env env, std::vector<float>& out) { return to_array(env, out); });  // Napi::Value, JS
//       thread
//
// Safe when the environment (a worker thread) goes away in the middle: its waiting jobs are dropped, its
// running one is stopped and waited for, and nothing is delivered any more.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "abort.h"
#include "addon/bindings.h"
#include "engine/compute_thread.h"
#include "status.h"

namespace ssrl {

struct AsyncOptions {
  int threads = 0;                        // ops threads while the work runs; 0 leaves them
  std::shared_ptr<AbortFlag> abort = {};  // null: one of the promise's own
  std::vector<Napi::Value> keep = {};  // objects that stay alive (typed arrays that the work reads or writes)
  std::vector<Napi::Value> callbacks = {};  // functions for Settler::call
};

// One JS environment: its live promises, and the way back onto its thread.
class Environment : public std::enable_shared_from_this<Environment> {
 public:
  using Task = std::function<void(Napi::Env)>;

  static void init(Napi::Env env);
  static std::shared_ptr<Environment> of(Napi::Env env);

  // Runs the task on the JS thread, soon; dropped when the environment is gone. Any thread. The task must not
  // own JS references, as it may be destroyed elsewhere.
  void post(Task task);

  // Constructors of wrapped classes, by name. JS thread only.
  std::unordered_map<std::string, Napi::FunctionReference> constructors;

 private:
  friend class Settler;
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference error;  // made at the call, so that its stack is the caller's
    std::vector<Napi::ObjectReference> kept;
    std::vector<Napi::FunctionReference> callbacks;
    std::shared_ptr<AbortFlag> abort;
  };

  static void deliver(napi_env env, napi_value, void* context, void*);
  void close();
  void settle(Napi::Env env, uint64_t id, const Status& status,
              const std::function<Napi::Value(Napi::Env)>& make);

  std::mutex mutex_;
  bool alive_ = true;
  std::vector<Task> tasks_;
  napi_threadsafe_function wake_ = nullptr;

  uint64_t next_ = 1;  // JS thread only, like pending_
  std::unordered_map<uint64_t, Pending> pending_;
};

// One promise, to be settled once from any thread.
class Settler {
 public:
  // JS thread. The event loop stays alive until the promise is settled.
  static std::shared_ptr<Settler> open(Napi::Env env, const AsyncOptions& options, Napi::Value* promise);

  void resolve(std::function<Napi::Value(Napi::Env)> make);
  void reject(Status status);
  // Runs `work` (returns Result<T>) here and now, on the compute thread, and settles with what comes of it.
  template <typename T, typename Work, typename Finish>
  void settle_with(const Work& work, Finish finish);
  // Calls callback `index` on the JS thread, unless the promise has been settled by then.
  void call(size_t index, std::function<std::vector<napi_value>(Napi::Env)> make_arguments);

  const void* owner() const { return environment_.get(); }
  const std::shared_ptr<AbortFlag>& abort() const { return abort_; }

 private:
  std::shared_ptr<Environment> environment_;
  std::shared_ptr<AbortFlag> abort_;
  uint64_t id_ = 0;
};

// Posts the promise's job to the compute thread; a job that is not taken rejects it.
void post_or_reject(const std::shared_ptr<Settler>& settler, int threads, std::function<void()> job);

// Runs `work`; what it throws becomes a Status, as does a flag that was raised before.
Status run_guarded(const AbortFlag* abort, const std::function<Status()>& work);

template <typename T, typename Work, typename Finish>
void Settler::settle_with(const Work& work, Finish finish) {
  auto value = std::make_shared<std::unique_ptr<T>>();
  Status status = run_guarded(abort_.get(), [&]() -> Status {
    Result<T> result = work();
    if (!result.ok()) return result.status();
    *value = std::make_unique<T>(std::move(result.value()));
    return {};
  });
  if (!status.ok()) return reject(std::move(status));
  resolve([value, finish = std::move(finish)](Napi::Env env) mutable -> Napi::Value {
    return finish(env, **value);
  });
}

// Runs `work` (returns Result<T>) on the compute thread, then `finish` on the JS thread for the promise's
// value. `work` may take a `const AbortFlag*`, to look at between steps.
template <typename T, typename Work, typename Finish>
Napi::Value run_async(Napi::Env env, const AsyncOptions& options, Work work, Finish finish) {
  Napi::Value promise;
  auto settler = Settler::open(env, options, &promise);
  // In a shared pointer, so that what the work holds is free before the caller hears of its end.
  auto held = std::make_shared<Work>(std::move(work));
  auto run = [settler, held = std::move(held), finish = std::move(finish)]() mutable {
    settler->template settle_with<T>(
        [&]() -> Result<T> {
          const auto mine = std::move(held);
          if constexpr (std::is_invocable_v<Work&, const AbortFlag*>) {
            return (*mine)(settler->abort().get());
          } else {
            return (*mine)();
          }
        },
        std::move(finish));
  };
  post_or_reject(settler, options.threads, std::move(run));
  return promise;
}

// The same for work that returns a Status.
template <typename Work, typename Finish>
Napi::Value run_job(Napi::Env env, const AsyncOptions& options, Work work, Finish finish) {
  return run_async<std::monostate>(
      env, options,
      [work = std::move(work)](const AbortFlag* abort) mutable -> Result<std::monostate> {
        SSRL_RETURN_IF_ERROR(work(abort));
        return std::monostate{};
      },
      [finish = std::move(finish)](Napi::Env env, std::monostate&) mutable -> Napi::Value {
        return finish(env);
      });
}

// The flag behind a token of createAbortToken(); null for null and undefined, an error for anything else.
std::shared_ptr<AbortFlag> abort_flag_of(Napi::Value token);

void init_async(Napi::Env env, Napi::Object exports);

}  // namespace ssrl
