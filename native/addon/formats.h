// GGUF metadata between JavaScript and C++.
#pragma once

#include <napi.h>

#include "formats/tensor_file.h"

namespace ssrl {

// Numbers become numbers (bigints beyond 2^53), number arrays typed arrays (booleans a Uint8Array), string
// arrays arrays of strings.
Napi::Object metadata_to_js(Napi::Env env, const Metadata& metadata);

// The reverse, for writing, from a record of `{ type, value }`: type is u8 ... f64, bool or string, or one of
// them with []: a typed array of that type, or an array of strings. kInvalidArg names the key.
Result<Metadata> metadata_from_js(const Napi::Object& object);

}  // namespace ssrl
