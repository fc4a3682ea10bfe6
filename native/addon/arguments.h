// Reads JavaScript values into plain C++ ones, on the JS thread. What does not fit throws ERR_INVALID_ARG
// saying what was expected and what came.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ssrl {

// "undefined", "3", "an object", ...: for messages.
std::string describe(const Napi::Value& value);

[[noreturn]] void throw_expected(Napi::Env env, const std::string& expected, const std::string& name,
                                 const Napi::Value& value);

int64_t integer_of(const Napi::Value& value, const std::string& name, int64_t least, int64_t most);
double number_of(const Napi::Value& value, const std::string& name);  // finite
bool boolean_of(const Napi::Value& value, const std::string& name);
std::string string_of(const Napi::Value& value, const std::string& name);
Napi::Object object_of(const Napi::Value& value, const std::string& name);
Napi::Array array_of(const Napi::Value& value, const std::string& name);
std::vector<int32_t> int32_array_of(const Napi::Value& value, const std::string& name);
std::vector<float> float32_array_of(const Napi::Value& value, const std::string& name);

Napi::Int32Array to_int32_array(Napi::Env env, const std::vector<int32_t>& values);
Napi::Float32Array to_float32_array(Napi::Env env, const std::vector<float>& values);

}  // namespace ssrl
