// NativeSession: one sequence over the cache that goes on.
#include <utility>

#include "addon/arguments.h"
#include "addon/policy.h"

namespace ssrl {
namespace {

// The sequence belongs to the compute thread; it is null until open or fork has come that far, and after
// close.
struct SessionState {
  std::shared_ptr<PolicyState> policy;
  std::shared_ptr<Sequence> sequence;
};

class SessionObject : public Napi::ObjectWrap<SessionObject> {
 public:
  struct Content {
    std::shared_ptr<SessionState> state;
    int64_t length;
  };

  static void define(Napi::Env env) {
    Napi::Function constructor = DefineClass(
        env, "NativeSession",
        {InstanceMethod("append", &SessionObject::append),
         InstanceMethod("generate", &SessionObject::generate), InstanceMethod("fork", &SessionObject::fork),
         InstanceMethod("close", &SessionObject::close),
         InstanceAccessor("length", &SessionObject::length, nullptr)});
    Environment::of(env)->constructors["Session"] = Napi::Persistent(constructor);
  }

  static Napi::Object wrap(Napi::Env env, Content content) {
    auto external = Napi::External<Content>::New(env, &content);
    return Environment::of(env)->constructors["Session"].New({external});
  }

  explicit SessionObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<SessionObject>(info), owner_(Environment::of(info.Env()).get()) {
    if (!info[0].IsExternal()) throw_expected(info.Env(), "openSession() to be called", "a session", info[0]);
    Content& content = *info[0].As<Napi::External<Content>>().Data();
    state_ = std::move(content.state);
    length_ = content.length;
  }
  ~SessionObject() override { release(); }

 private:
  Napi::Value append(const Napi::CallbackInfo& info);
  Napi::Value generate(const Napi::CallbackInfo& info);
  Napi::Value fork(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo&) { release(); }
  Napi::Value length(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), double(length_));
  }

  std::shared_ptr<SessionState> state(Napi::Env env) const {
    throw_if_error(env,
                   state_ ? state_->policy->check() : Status(Code::kDisposed, "This session was closed"));
    return state_;
  }

  void release() {
    if (!state_) return;
    auto work = [state = std::move(state_)] {
      if (Generator* generator = state->policy->generator.get()) generator->forget(state->sequence);
      state->sequence = nullptr;
    };
    state_ = nullptr;
    (void)ComputeThread::instance().post({owner_, 0, std::move(work)});
  }

  std::shared_ptr<SessionState> state_;
  int64_t length_ = 0;
  const void* owner_;
};

Napi::Value SessionObject::append(const Napi::CallbackInfo& info) {
  auto session = state(info.Env());
  auto call = std::make_shared<GenerateCall>();
  call->requests.emplace_back();
  call->append = int32_array_of(info[0], "tokens");
  call->session = session->sequence;
  call->prefill_only = true;
  const int64_t added = int64_t(call->append.size());
  return start_call(Value(), session->policy, std::move(call), {},
                    [this, added](Napi::Env env, std::vector<Completion>&) -> Napi::Value {
                      length_ += added;
                      return env.Undefined();
                    });
}

Napi::Value SessionObject::generate(const Napi::CallbackInfo& info) {
  auto session = state(info.Env());
  const Napi::Object object = object_of(info[0], "request");
  auto call = std::make_shared<GenerateCall>();
  GenerateRequest request;
  request.sampling = sampling_of(object);
  request.first_sample = uint32_t(integer_of(object.Get("firstSample"), "firstSample", 0, 0xffffffffLL));
  call->requests.push_back(std::move(request));
  call->end_tokens = int32_array_of(info[1], "endTokens");
  call->session = session->sequence;
  const Napi::Value append = object.Get("append");
  if (!append.IsUndefined()) call->append = int32_array_of(append, "append");
  const int64_t added = int64_t(call->append.size());
  // The completion comes as the promise's value, and not by a callback.
  return start_call(Value(), session->policy, std::move(call),
                    {.abort = abort_flag_of(info[2]), .callbacks = {info.Env().Null(), info[3]}},
                    [this, added](Napi::Env env, std::vector<Completion>& completions) -> Napi::Value {
                      length_ += added + int64_t(completions[0].tokens.size());
                      return completion_to_js(env, completions[0]);
                    });
}

Napi::Value SessionObject::fork(const Napi::CallbackInfo& info) {
  auto session = state(info.Env());
  const int64_t count = integer_of(info[0], "n", 1, 1 << 20);
  using Forks = std::vector<std::shared_ptr<Sequence>>;
  return run_on_policy<Forks>(
      Value(), session->policy, {},
      [session, count](PolicyState& policy, const AbortFlag*) -> Result<Forks> {
        if (session->sequence->busy)
          return invalid_arg("Expected a session that is at rest, but it is working");
        Forks forks;
        for (int64_t i = 0; i < count; ++i) forks.push_back(policy.generator->fork(*session->sequence));
        return forks;
      },
      [policy = session->policy, length = length_](Napi::Env env, Forks& forks) -> Napi::Value {
        Napi::Array array = Napi::Array::New(env, forks.size());
        for (uint32_t i = 0; i < forks.size(); ++i) {
          auto state = std::make_shared<SessionState>(SessionState{policy, forks[i]});
          array.Set(i, SessionObject::wrap(env, {std::move(state), length}));
        }
        return array;
      });
}

}  // namespace

void define_session(Napi::Env env) {
  SessionObject::define(env);
}

Napi::Value PolicyObject::open_session(const Napi::CallbackInfo& info) {
  auto session = std::make_shared<SessionState>(SessionState{state_, std::make_shared<Sequence>()});
  auto call = std::make_shared<GenerateCall>();
  call->requests.emplace_back();
  call->append = int32_array_of(info[0], "tokens");
  call->session = session->sequence;
  call->prefill_only = true;
  const int64_t length = int64_t(call->append.size());
  post([sequence = session->sequence](PolicyState& state) {
    if (state.generator) state.generator->keep(sequence);
  });
  auto finish = [session, length](Napi::Env env, std::vector<Completion>&) -> Napi::Value {
    return SessionObject::wrap(env, {session, length});
  };
  return start_call(Value(), state_, std::move(call), {}, std::move(finish));
}

}  // namespace ssrl
