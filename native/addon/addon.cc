// Entry point of the addon: registers the functions that lib/native.ts describes.
#include "addon/async.h"
#include "addon/bindings.h"
#include "ops/ops.h"

namespace ssrl {

const char* code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kInvalidArg:
      return "ERR_INVALID_ARG";
    case Code::kModelFormat:
      return "ERR_MODEL_FORMAT";
    case Code::kOutOfMemory:
      return "ERR_OUT_OF_MEMORY";
    case Code::kNonFinite:
      return "ERR_NON_FINITE";
    case Code::kNoDevice:
      return "ERR_NO_DEVICE";
    case Code::kIo:
      return "ERR_IO";
    case Code::kDisposed:
      return "ERR_DISPOSED";
    case Code::kAborted:
      return "ABORTED";
    case Code::kInternal:
      return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

Napi::Error to_error(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Set("code", Napi::String::New(env, code_name(status.code())));
  return error;
}

void throw_if_error(Napi::Env env, const Status& status) {
  if (!status.ok()) throw to_error(env, status);
}

}  // namespace ssrl

namespace ssrl {
__attribute__((weak)) void init_environment(Napi::Env env, Napi::Object exports);
__attribute__((weak)) void init_kernels(Napi::Env env, Napi::Object exports);
__attribute__((weak)) void init_formats(Napi::Env env, Napi::Object exports);
__attribute__((weak)) void init_policy(Napi::Env env, Napi::Object exports);
__attribute__((weak)) void init_learner(Napi::Env env, Napi::Object exports);
}  // namespace ssrl

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  ssrl::throw_if_error(env, ssrl::ops::apply_cpu_limit());
  ssrl::init_async(env, exports);
  if (ssrl::init_environment) ssrl::init_environment(env, exports);
  if (ssrl::init_kernels) ssrl::init_kernels(env, exports);
  if (ssrl::init_formats) ssrl::init_formats(env, exports);
  if (ssrl::init_policy) ssrl::init_policy(env, exports);
  if (ssrl::init_learner) ssrl::init_learner(env, exports);
  return exports;
}

NODE_API_MODULE(ssrl, Init)
