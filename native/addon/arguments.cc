#include "addon/arguments.h"

#include <algorithm>
#include <cmath>

#include "addon/bindings.h"

namespace ssrl {

std::string describe(const Napi::Value& value) {
  if (value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsNumber() || value.IsBoolean()) return value.ToString().Utf8Value();
  if (value.IsString()) return "'" + value.As<Napi::String>().Utf8Value() + "'";
  if (value.IsFunction()) return "a function";
  if (value.IsTypedArray()) return "a typed array of another type";
  if (value.IsArray()) return "an array";
  return "an object";
}

void throw_expected(Napi::Env env, const std::string& expected, const std::string& name,
                    const Napi::Value& value) {
  throw to_error(env,
                 invalid_arg("Expected " + expected + " for " + name + " but received " + describe(value)));
}

int64_t integer_of(const Napi::Value& value, const std::string& name, int64_t least, int64_t most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(number >= double(least) && number <= double(most)) || std::trunc(number) != number) {
    throw_expected(value.Env(), "an integer from " + std::to_string(least) + " to " + std::to_string(most),
                   name, value);
  }
  return int64_t(number);
}

double number_of(const Napi::Value& value, const std::string& name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!std::isfinite(number)) throw_expected(value.Env(), "a finite number", name, value);
  return number;
}

bool boolean_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsBoolean()) throw_expected(value.Env(), "a boolean", name, value);
  return value.As<Napi::Boolean>().Value();
}

std::string string_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsString()) throw_expected(value.Env(), "a string", name, value);
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object object_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsObject() || value.IsFunction()) throw_expected(value.Env(), "an object", name, value);
  return value.As<Napi::Object>();
}

Napi::Array array_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsArray()) throw_expected(value.Env(), "an array", name, value);
  return value.As<Napi::Array>();
}

std::vector<int32_t> int32_array_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    throw_expected(value.Env(), "an Int32Array", name, value);
  }
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::vector<float> float32_array_of(const Napi::Value& value, const std::string& name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    throw_expected(value.Env(), "a Float32Array", name, value);
  }
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

Napi::Int32Array to_int32_array(Napi::Env env, const std::vector<int32_t>& values) {
  Napi::Int32Array array = Napi::Int32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Float32Array to_float32_array(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

}  // namespace ssrl
