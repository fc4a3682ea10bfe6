#include <cmath>
#include <cstring>

#include "addon/formats.h"

namespace ssrl {
namespace {

constexpr double kSafeInteger = 9007199254740991.0;

struct TypeName {
  const char* name;
  ValueType type;
  napi_typedarray_type array;
};
constexpr TypeName kTypeNames[] = {
    {"u8", ValueType::kU8, napi_uint8_array},       {"i8", ValueType::kI8, napi_int8_array},
    {"u16", ValueType::kU16, napi_uint16_array},    {"i16", ValueType::kI16, napi_int16_array},
    {"u32", ValueType::kU32, napi_uint32_array},    {"i32", ValueType::kI32, napi_int32_array},
    {"u64", ValueType::kU64, napi_biguint64_array}, {"i64", ValueType::kI64, napi_bigint64_array},
    {"f32", ValueType::kF32, napi_float32_array},   {"f64", ValueType::kF64, napi_float64_array},
};

Napi::Value bytes_to_js(Napi::Env env, ValueType type, const NumberArray& array) {
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, array.bytes.size());
  if (!array.bytes.empty()) std::memcpy(buffer.Data(), array.bytes.data(), array.bytes.size());
  napi_typedarray_type kind = napi_uint8_array;  // booleans too
  for (const TypeName& known : kTypeNames) {
    if (known.type == type) kind = known.array;
  }
  napi_value result;
  if (napi_create_typedarray(env, kind, array.count, buffer, 0, &result) != napi_ok) {
    throw Napi::Error::New(env, "Could not make a typed array");
  }
  return {env, result};
}

struct ToJs {
  Napi::Env env;
  ValueType type;

  Napi::Value operator()(uint64_t value) const {
    if (value <= static_cast<uint64_t>(kSafeInteger))
      return Napi::Number::New(env, static_cast<double>(value));
    return Napi::BigInt::New(env, value);
  }
  Napi::Value operator()(int64_t value) const {
    if (std::fabs(static_cast<double>(value)) <= kSafeInteger) {
      return Napi::Number::New(env, static_cast<double>(value));
    }
    return Napi::BigInt::New(env, value);
  }
  Napi::Value operator()(double value) const { return Napi::Number::New(env, value); }
  Napi::Value operator()(bool value) const { return Napi::Boolean::New(env, value); }
  Napi::Value operator()(const std::string& value) const { return Napi::String::New(env, value); }
  Napi::Value operator()(const NumberArray& value) const { return bytes_to_js(env, type, value); }
  Napi::Value operator()(const StringArray& value) const {
    Napi::Array array = Napi::Array::New(env, value.ends.size());
    for (size_t i = 0; i < value.ends.size(); ++i) {
      Napi::HandleScope scope(env);
      const std::string_view text = value.at(i);
      array.Set(static_cast<uint32_t>(i), Napi::String::New(env, text.data(), text.size()));
    }
    return array;
  }
};

// Whether `value` is a whole number that `type` holds; `*out` gets it.
bool integer_of(ValueType type, double value, MetadataValue* out) {
  const bool is_signed =
      type == ValueType::kI8 || type == ValueType::kI16 || type == ValueType::kI32 || type == ValueType::kI64;
  double low = 0, high = kSafeInteger;
  if (type == ValueType::kU8) high = 255;
  if (type == ValueType::kU16) high = 65535;
  if (type == ValueType::kU32) high = 4294967295.0;
  if (type == ValueType::kI8) low = -128, high = 127;
  if (type == ValueType::kI16) low = -32768, high = 32767;
  if (type == ValueType::kI32) low = -2147483648.0, high = 2147483647.0;
  if (type == ValueType::kI64) low = -kSafeInteger;
  if (std::trunc(value) != value || !(value >= low && value <= high)) return false;
  out->type = type;
  if (is_signed) {
    out->value = static_cast<int64_t>(value);
  } else {
    out->value = static_cast<uint64_t>(value);
  }
  return true;
}

bool number_from_js(ValueType type, const Napi::Value& value, MetadataValue* out) {
  if (!value.IsNumber()) return false;
  const double number = value.As<Napi::Number>().DoubleValue();
  if (type != ValueType::kF32 && type != ValueType::kF64) return integer_of(type, number, out);
  *out = {type, number};
  return true;
}

bool numbers_from_js(const TypeName& type, const Napi::Value& value, MetadataValue* out) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type.array) return false;
  const auto array = value.As<Napi::TypedArray>();
  NumberArray numbers;
  numbers.count = array.ElementLength();
  const auto* begin = static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  if (numbers.count > 0) numbers.bytes.assign(begin, begin + array.ByteLength());
  *out = {type.type, std::move(numbers)};
  return true;
}

bool strings_from_js(const Napi::Value& value, MetadataValue* out) {
  if (!value.IsArray()) return false;
  const auto array = value.As<Napi::Array>();
  StringArray strings;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    Napi::HandleScope scope(array.Env());
    const Napi::Value item = array.Get(i);
    if (!item.IsString()) return false;
    strings.bytes += item.As<Napi::String>().Utf8Value();
    strings.ends.push_back(strings.bytes.size());
  }
  *out = {ValueType::kString, std::move(strings)};
  return true;
}

bool from_js(const Napi::Value& entry, MetadataValue* out) {
  if (!entry.IsObject()) return false;
  const Napi::Value type = entry.As<Napi::Object>().Get("type");
  const Napi::Value value = entry.As<Napi::Object>().Get("value");
  if (!type.IsString()) return false;
  std::string name = type.As<Napi::String>().Utf8Value();
  if (name == "string" && value.IsString()) {
    *out = {ValueType::kString, value.As<Napi::String>().Utf8Value()};
    return true;
  }
  if (name == "bool" && value.IsBoolean()) {
    *out = {ValueType::kBool, value.As<Napi::Boolean>().Value()};
    return true;
  }
  if (name == "string[]") return strings_from_js(value, out);
  const bool array = name.ends_with("[]");
  if (array) name.resize(name.size() - 2);
  for (const TypeName& known : kTypeNames) {
    if (name == known.name) {
      return array ? numbers_from_js(known, value, out) : number_from_js(known.type, value, out);
    }
  }
  return false;
}

}  // namespace

Napi::Object metadata_to_js(Napi::Env env, const Metadata& metadata) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [key, value] : metadata) {
    // Defined, not assigned: a file may call a key __proto__.
    object.DefineProperty(Napi::PropertyDescriptor::Value(Napi::String::New(env, key),
                                                          std::visit(ToJs{env, value.type}, value.value),
                                                          napi_default_jsproperty));
  }
  return object;
}

Result<Metadata> metadata_from_js(const Napi::Object& object) {
  Metadata metadata;
  const Napi::Array keys = object.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const Napi::Value key = keys.Get(i);
    std::string name = key.ToString().Utf8Value();
    MetadataValue value;
    if (!from_js(object.Get(key), &value)) {
      return invalid_arg("Expected { type, value } with a value of its type as metadata " + name);
    }
    metadata.emplace_back(std::move(name), std::move(value));
  }
  return metadata;
}

}  // namespace ssrl
