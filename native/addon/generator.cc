// NativePolicy: generation.
#include <cmath>
#include <limits>
#include <utility>

#include "addon/arguments.h"
#include "addon/policy.h"

namespace ssrl {
namespace {

constexpr int64_t kMostInt = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostUint = std::numeric_limits<uint32_t>::max();

std::vector<std::string> stops_of(const Napi::Value& value) {
  const Napi::Array array = array_of(value, "stop");
  std::vector<std::string> stops;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsTypedArray() || item.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
        item.As<Napi::TypedArray>().ElementLength() == 0) {
      throw_expected(value.Env(), "Uint8Arrays of at least one byte", "stop", item);
    }
    const auto bytes = item.As<Napi::Uint8Array>();
    stops.emplace_back(reinterpret_cast<const char*>(bytes.Data()), bytes.ElementLength());
  }
  return stops;
}

GenerateRequest request_of(const Napi::Object& object) {
  GenerateRequest request;
  request.tokens = int32_array_of(object.Get("tokens"), "tokens");
  request.samples = int32_t(integer_of(object.Get("n"), "n", 1, kMostInt));
  request.first_sample = uint32_t(integer_of(object.Get("firstSample"), "firstSample", 0, kMostUint));
  request.sampling = sampling_of(object);
  return request;
}

const char* reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kEnd:
      return "end";
    case FinishReason::kLength:
      return "length";
  }
  return "length";
}

// Completions of a call, gathered on the compute thread and handed over at its end.
struct Gathered {
  std::vector<Completion> completions;
};

}  // namespace

SamplingSettings sampling_of(const Napi::Object& object) {
  SamplingSettings sampling;
  const auto real = [&](const char* name, double least, double most) {
    const double number = number_of(object.Get(name), name);
    if (!(number >= least && number <= most)) {
      throw_expected(object.Env(), "a number from " + std::to_string(least) + " to " + std::to_string(most),
                     name, object.Get(name));
    }
    return float(number);
  };
  sampling.temperature = real("temperature", 0, 1e6);
  sampling.top_p = real("topP", 0, 1);
  if (!(sampling.top_p > 0)) throw_expected(object.Env(), "a number above 0", "topP", object.Get("topP"));
  sampling.min_p = real("minP", 0, 1);
  sampling.top_k = int32_t(integer_of(object.Get("topK"), "topK", 0, kMostInt));
  sampling.max_new_tokens = int32_t(integer_of(object.Get("maxNewTokens"), "maxNewTokens", 1, kMostInt));
  sampling.seed = uint64_t(integer_of(object.Get("seedHigh"), "seedHigh", 0, kMostUint)) << 32 |
                  uint64_t(integer_of(object.Get("seedLow"), "seedLow", 0, kMostUint));
  sampling.ignore_end = boolean_of(object.Get("ignoreEnd"), "ignoreEnd");
  sampling.stop = stops_of(object.Get("stop"));
  return sampling;
}

Napi::Object completion_to_js(Napi::Env env, const Completion& completion) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("requestIndex", Napi::Number::New(env, completion.request));
  object.Set("sampleIndex", Napi::Number::New(env, completion.sample));
  object.Set("tokens", to_int32_array(env, completion.tokens));
  object.Set("logProbs", to_float32_array(env, completion.log_probs));
  object.Set("entropies", to_float32_array(env, completion.entropies));
  object.Set("sampledLogProbs", completion.sampled_log_probs.empty()
                                    ? env.Null()
                                    : Napi::Value(to_float32_array(env, completion.sampled_log_probs)));
  object.Set("finishReason", reason_name(completion.reason));
  return object;
}

Napi::Value start_call(const Napi::Object& self, std::shared_ptr<PolicyState> state,
                       std::shared_ptr<GenerateCall> call, AsyncOptions options,
                       std::function<Napi::Value(Napi::Env, std::vector<Completion>&)> finish) {
  const Napi::Env env = self.Env();
  throw_if_error(env, state->check());
  options.keep.push_back(self);
  const bool reports = !options.callbacks.empty() && options.callbacks[0].IsFunction();
  const bool streams = options.callbacks.size() > 1 && options.callbacks[1].IsFunction();
  Napi::Value promise;
  auto settler = Settler::open(env, options, &promise);
  state->watch(settler->abort());
  call->abort = settler->abort();
  auto gathered = std::make_shared<Gathered>();
  call->on_completion = [settler, gathered, reports](Completion completion) {
    if (reports) {
      settler->call(0, [completion = std::move(completion)](Napi::Env env) -> std::vector<napi_value> {
        return {completion_to_js(env, completion)};
      });
      return;
    }
    gathered->completions.push_back(std::move(completion));
  };
  if (streams) {
    call->on_tokens = [settler](TokenEvents events) {
      settler->call(1, [events = std::move(events)](Napi::Env env) -> std::vector<napi_value> {
        return {to_int32_array(env, events.requests), to_int32_array(env, events.samples),
                to_int32_array(env, events.tokens), to_float32_array(env, events.log_probs)};
      });
    };
  }
  call->on_done = [settler, gathered, state = state.get(), finish = std::move(finish)](Status status) {
    // A call that the disposal stopped says so.
    if (status.code() == Code::kAborted && state->disposed()) status = state->check();
    if (!status.ok()) return settler->reject(std::move(status));
    settler->resolve([gathered, finish](Napi::Env env) { return finish(env, gathered->completions); });
  };
  auto add = [state, call, owner = settler->owner()] {
    if (state->generator == nullptr) return call->on_done(state->check());
    state->generator->add(call);
    state->post_step(owner);
  };
  post_or_reject(settler, state->threads, std::move(add));
  return promise;
}

void PolicyObject::set_token_bytes(const Napi::CallbackInfo& info) {
  const Napi::Value blob = info[0];
  if (!blob.IsTypedArray() || blob.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw_expected(info.Env(), "a Uint8Array", "blob", blob);
  }
  const auto bytes = blob.As<Napi::Uint8Array>();
  auto offsets = int32_array_of(info[1], "offsets");
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] < (i == 0 ? 0 : offsets[i - 1]) || size_t(offsets[i]) > bytes.ElementLength()) {
      throw_expected(info.Env(), "offsets that rise up to the blob's length", "offsets", info[1]);
    }
  }
  post([text = std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ElementLength()),
        offsets = std::move(offsets)](PolicyState& state) {
    if (state.generator) state.generator->set_token_bytes(text, offsets);
  });
}

void PolicyObject::set_cache_budget(const Napi::CallbackInfo& info) {
  const int64_t bytes = integer_of(info[0], "bytes", 0, int64_t(1) << 53);
  post([bytes](PolicyState& state) {
    if (state.generator) state.generator->set_cache_budget(size_t(bytes));
  });
}

Napi::Value PolicyObject::generate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object options = object_of(info[0], "options");
  auto call = std::make_shared<GenerateCall>();
  const Napi::Array requests = array_of(options.Get("requests"), "requests");
  for (uint32_t i = 0; i < requests.Length(); ++i) {
    Napi::HandleScope scope(env);
    call->requests.push_back(request_of(object_of(requests.Get(i), "requests")));
  }
  call->end_tokens = int32_array_of(options.Get("endTokens"), "endTokens");
  return start_call(Value(), state_, std::move(call),
                    {.abort = abort_flag_of(options.Get("abort")),
                     .callbacks = {options.Get("onCompletion"), options.Get("onTokens")}},
                    [](Napi::Env env, std::vector<Completion>& completions) -> Napi::Value {
                      Napi::Array array = Napi::Array::New(env, completions.size());
                      for (uint32_t i = 0; i < completions.size(); ++i) {
                        Napi::HandleScope scope(env);
                        array.Set(i, completion_to_js(env, completions[i]));
                      }
                      return array;
                    });
}

Napi::Value PolicyObject::statistics(const Napi::CallbackInfo& info) {
  struct Snapshot {
    GeneratorStatistics counts;
    int64_t pages_used, pages_total;
  };
  return run_on_policy<Snapshot>(
      Value(), state_, {},
      [](PolicyState& state, const AbortFlag*) -> Result<Snapshot> {
        const Generator& generator = *state.generator;
        return Snapshot{generator.statistics(), generator.pages_used(), generator.pages_total()};
      },
      [](Napi::Env env, Snapshot& snapshot) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        const auto set = [&](const char* name, int64_t value) {
          object.Set(name, Napi::Number::New(env, double(value)));
        };
        set("prefilledTokens", snapshot.counts.prefilled_tokens);
        set("decodedTokens", snapshot.counts.decoded_tokens);
        set("preemptions", snapshot.counts.preemptions);
        set("steps", snapshot.counts.steps);
        object.Set("seconds", Napi::Number::New(env, snapshot.counts.seconds));
        set("pagesUsed", snapshot.pages_used);
        set("pagesTotal", snapshot.pages_total);
        return object;
      });
}

}  // namespace ssrl
