// Entry point of the addon: registers the functions that lib/native.ts describes.
#include "addon/async.h"
#include "addon/bindings.h"
#include "addon/devices.h"
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

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  ssrl::throw_if_error(env, ssrl::ops::apply_cpu_limit());
  ssrl::init_async(env, exports);
  ssrl::init_environment(env, exports);
  ssrl::init_kernels(env, exports);
  ssrl::init_formats(env, exports);
  ssrl::init_policy(env, exports);
  ssrl::init_learner(env, exports);
  ssrl::init_devices(env, exports);
  return exports;
}

NODE_API_MODULE(ssrl, Init)
