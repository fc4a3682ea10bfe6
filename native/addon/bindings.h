// What the files of the addon share: who registers what, and how one unwraps what another made.
#pragma once

#include <napi.h>

#include <memory>

#include "status.h"

namespace ssrl {

// Each adds its functions of lib/native.ts to the addon's exports.
void init_environment(Napi::Env env, Napi::Object exports);
void init_kernels(Napi::Env env, Napi::Object exports);
void init_formats(Napi::Env env, Napi::Object exports);
void init_policy(Napi::Env env, Napi::Object exports);
void init_learner(Napi::Env env, Napi::Object exports);

// "ERR_INVALID_ARG" and so on; "ABORTED" is replaced by the signal's reason in lib.
const char* code_name(Code code);

// A JavaScript error with `code`; lib/native.ts makes it an SsrlError.
Napi::Error to_error(Napi::Env env, const Status& status);

// Throws the status's error unless it is ok.
void throw_if_error(Napi::Env env, const Status& status);

}  // namespace ssrl
