// readTensorFile, readTensor, writeTensorFile and writeGgufFile of lib/native.ts.
#include "addon/formats.h"

#include <cstring>
#include <memory>
#include <new>

#include "addon/async.h"
#include "addon/bindings.h"
#include "formats/writer.h"

namespace ssrl {
namespace {

Status expected(const std::string& what, const std::string& call) {
  return invalid_arg("Expected " + what + " for " + call);
}

std::string string_argument(const Napi::CallbackInfo& info, size_t index, const char* name,
                            const char* call) {
  if (!info[index].IsString()) throw to_error(info.Env(), expected(std::string("a string as ") + name, call));
  return info[index].As<Napi::String>().Utf8Value();
}

Napi::Array shape_to_js(Napi::Env env, const std::vector<int64_t>& shape) {
  Napi::Array array = Napi::Array::New(env, shape.size());
  for (uint32_t i = 0; i < shape.size(); ++i)
    array.Set(i, Napi::Number::New(env, static_cast<double>(shape[i])));
  return array;
}

Napi::Value file_to_js(Napi::Env env, const TensorFile& file) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("format", file.format());
  result.Set("metadata", metadata_to_js(env, file.metadata()));
  Napi::Array tensors = Napi::Array::New(env, file.tensors().size());
  for (uint32_t i = 0; i < file.tensors().size(); ++i) {
    Napi::HandleScope scope(env);
    const TensorInfo& info = file.tensors()[i];
    Napi::Object tensor = Napi::Object::New(env);
    tensor.Set("name", info.name);
    tensor.Set("dtype", info.dtype);
    tensor.Set("shape", shape_to_js(env, info.shape));
    tensor.Set("bytes", Napi::Number::New(env, static_cast<double>(info.bytes)));
    tensors.Set(i, tensor);
  }
  result.Set("tensors", tensors);
  return result;
}

Napi::Value read_tensor_file(const Napi::CallbackInfo& info) {
  const std::string path = string_argument(info, 0, "path", "readTensorFile(path)");
  return run_async<std::unique_ptr<TensorFile>>(
      info.Env(), {}, [path] { return open_tensor_file(path); },
      [](Napi::Env env, std::unique_ptr<TensorFile>& file) { return file_to_js(env, *file); });
}

// A tensor's bytes, and the type of the array that shows them.
struct RawTensor {
  napi_typedarray_type type = napi_uint8_array;
  size_t element_bytes = 1;
  size_t bytes = 0;
  std::unique_ptr<uint8_t[]> data;
};

struct ArrayType {
  const char* dtype;
  napi_typedarray_type type;
  size_t bytes;
};
constexpr ArrayType kArrayTypes[] = {
    {"F32", napi_float32_array, 4}, {"F64", napi_float64_array, 8},   {"F16", napi_uint16_array, 2},
    {"BF16", napi_uint16_array, 2}, {"I8", napi_int8_array, 1},       {"I16", napi_int16_array, 2},
    {"I32", napi_int32_array, 4},   {"I64", napi_bigint64_array, 8},  {"U8", napi_uint8_array, 1},
    {"U16", napi_uint16_array, 2},  {"U32", napi_uint32_array, 4},    {"U64", napi_biguint64_array, 8},
    {"BOOL", napi_uint8_array, 1},  {"F8_E4M3", napi_uint8_array, 1}, {"F8_E5M2", napi_uint8_array, 1},
};

const ArrayType* array_type_of(const std::string& dtype) {
  for (const ArrayType& type : kArrayTypes) {
    if (dtype == type.dtype) return &type;
  }
  return nullptr;
}

Result<RawTensor> load_tensor(const std::string& path, const std::string& name) {
  auto file = open_tensor_file(path);
  if (!file.ok()) return file.status();
  const TensorInfo* info = file.value()->find(name);
  if (info == nullptr) return invalid_arg("Expected the name of a tensor in " + path + ", received " + name);
  const ArrayType* type = array_type_of(info->dtype);
  RawTensor tensor;
  tensor.type = type != nullptr ? type->type : napi_float32_array;
  tensor.element_bytes = type != nullptr ? type->bytes : sizeof(float);
  tensor.bytes = type != nullptr ? info->bytes : static_cast<size_t>(info->count()) * sizeof(float);
  tensor.data.reset(new (std::nothrow) uint8_t[tensor.bytes]);
  if (tensor.data == nullptr) {
    return Status(Code::kOutOfMemory,
                  "No memory for the " + std::to_string(tensor.bytes) + " bytes of tensor " + name);
  }
  // new[] of bytes is aligned for every element type.
  SSRL_RETURN_IF_ERROR(type != nullptr
                           ? file.value()->read_raw(*info, tensor.data.get())
                           : file.value()->read_f32(*info, reinterpret_cast<float*>(tensor.data.get())));
  return tensor;
}

Napi::Value read_tensor(const Napi::CallbackInfo& info) {
  const std::string path = string_argument(info, 0, "path", "readTensor(path, name)");
  const std::string name = string_argument(info, 1, "name", "readTensor(path, name)");
  return run_async<RawTensor>(
      info.Env(), {}, [path, name] { return load_tensor(path, name); },
      [](Napi::Env env, RawTensor& tensor) -> Napi::Value {
        Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, tensor.bytes);
        if (tensor.bytes > 0) std::memcpy(buffer.Data(), tensor.data.get(), tensor.bytes);
        napi_value array;
        const napi_status status =
            napi_create_typedarray(env, tensor.type, tensor.bytes / tensor.element_bytes, buffer, 0, &array);
        if (status != napi_ok) throw to_error(env, {Code::kInternal, "Could not make a typed array"});
        return {env, array};
      });
}

// ---- writing
// -----------------------------------------------------------------------------------------------------

struct WriteJob {
  std::string path;
  std::vector<TensorToWrite> tensors;
  std::vector<const void*> data;
  std::vector<Napi::Value> keep;
};

std::vector<int64_t> shape_from_js(Napi::Env env, const Napi::Value& value, const std::string& name) {
  const Status problem = expected("a shape of whole numbers from 0 to 2^53 for tensor " + name, "writing");
  if (!value.IsArray()) throw to_error(env, problem);
  std::vector<int64_t> shape;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    const double size = item.IsNumber() ? item.As<Napi::Number>().DoubleValue() : -1;
    if (!(size >= 0 && size <= 9007199254740991.0) ||
        size != static_cast<double>(static_cast<int64_t>(size))) {
      throw to_error(env, problem);
    }
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

const char* dtype_of_array(napi_typedarray_type type) {
  if (type == napi_uint8_clamped_array) return "U8";
  // The first entry with this array type is F32, F64, ...; 16-bit floats have none, their bits arrive as U16.
  for (const ArrayType& known : kArrayTypes) {
    if (known.type == type && type != napi_uint16_array) return known.dtype;
  }
  return "U16";
}

void read_tensor_to_write(Napi::Env env, const Napi::Value& value, WriteJob& job) {
  if (!value.IsObject()) throw to_error(env, expected("tensors as { name, shape, data }", "writing"));
  const auto object = value.As<Napi::Object>();
  const Napi::Value name = object.Get("name"), data = object.Get("data"), dtype = object.Get("dtype");
  TensorToWrite tensor;
  if (!name.IsString()) throw to_error(env, expected("a string as a tensor's name", "writing"));
  tensor.name = name.As<Napi::String>().Utf8Value();
  if (!data.IsTypedArray())
    throw to_error(env, expected("a typed array as data of tensor " + tensor.name, "writing"));
  const auto array = data.As<Napi::TypedArray>();
  tensor.shape = shape_from_js(env, object.Get("shape"), tensor.name);
  const std::string own = dtype_of_array(array.TypedArrayType());
  tensor.dtype = dtype.IsString() ? dtype.As<Napi::String>().Utf8Value() : own;
  const bool half_bits = own == "U16" && (tensor.dtype == "F16" || tensor.dtype == "BF16");
  tensor.raw = own != "F32";
  if (tensor.raw && tensor.dtype != own && !half_bits) {
    throw to_error(
        env, expected("a Float32Array for tensor " + tensor.name + " of type " + tensor.dtype, "writing"));
  }
  uint64_t bytes = 0;
  if (!tensor_bytes(tensor.shape, *find_data_type(own), &bytes) || bytes != array.ByteLength()) {
    throw to_error(env, expected("as many values as its shape has in tensor " + tensor.name, "writing"));
  }
  job.keep.push_back(array);
  job.data.push_back(static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset());
  job.tensors.push_back(std::move(tensor));
}

WriteJob read_write_job(const Napi::CallbackInfo& info, const char* call) {
  WriteJob job;
  job.path = string_argument(info, 0, "path", call);
  if (!info[1].IsArray()) throw to_error(info.Env(), expected("an array of tensors", call));
  if (!info[2].IsObject()) throw to_error(info.Env(), expected("an object as metadata", call));
  const auto tensors = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < tensors.Length(); ++i) read_tensor_to_write(info.Env(), tensors.Get(i), job);
  return job;
}

template <typename Write>
Napi::Value run_write(Napi::Env env, WriteJob job, Write write) {
  AsyncOptions options;
  options.keep = std::move(job.keep);
  return run_job(
      env, options,
      [write, path = job.path, tensors = std::move(job.tensors),
       data = std::move(job.data)](const AbortFlag*) {
        return write(path, tensors,
                     [&data](size_t i, std::vector<float>&) -> Result<const void*> { return data[i]; });
      },
      [](Napi::Env done) { return done.Undefined(); });
}

Napi::Value write_tensor_file(const Napi::CallbackInfo& info) {
  WriteJob job = read_write_job(info, "writeTensorFile(path, tensors, metadata)");
  std::vector<std::pair<std::string, std::string>> metadata;
  const auto object = info[2].As<Napi::Object>();
  const Napi::Array keys = object.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const Napi::Value value = object.Get(keys.Get(i));
    if (!value.IsString()) throw to_error(info.Env(), expected("strings as metadata", "writeTensorFile"));
    metadata.emplace_back(keys.Get(i).ToString().Utf8Value(), value.As<Napi::String>().Utf8Value());
  }
  return run_write(
      info.Env(), std::move(job),
      [metadata = std::move(metadata)](const std::string& path, const std::vector<TensorToWrite>& tensors,
                                       const TensorSource& source) {
        return write_safetensors(path, tensors, metadata, source);
      });
}

Napi::Value write_gguf_file(const Napi::CallbackInfo& info) {
  WriteJob job = read_write_job(info, "writeGgufFile(path, tensors, metadata)");
  auto metadata = metadata_from_js(info[2].As<Napi::Object>());
  throw_if_error(info.Env(), metadata.status());
  return run_write(info.Env(), std::move(job),
                   [metadata = std::move(metadata.value())](
                       const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const TensorSource& source) { return write_gguf(path, tensors, metadata, source); });
}

}  // namespace

void init_formats(Napi::Env env, Napi::Object exports) {
  exports.Set("readTensorFile", Napi::Function::New(env, read_tensor_file));
  exports.Set("readTensor", Napi::Function::New(env, read_tensor));
  exports.Set("writeTensorFile", Napi::Function::New(env, write_tensor_file));
  exports.Set("writeGgufFile", Napi::Function::New(env, write_gguf_file));
}

}  // namespace ssrl
