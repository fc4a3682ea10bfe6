// A policy's weights as files.
#include <limits>

#include "addon/arguments.h"
#include "addon/formats.h"
#include "addon/policy.h"
#include "formats/gguf.h"
#include "formats/writer.h"

namespace ssrl {
namespace {

struct SavedTensor {
  std::string name = {};
  std::string parameter = {};
  std::string dtype = {};
  int permute_heads = 0;
  bool own_values = false;  // `values` are written, as one row, and not a parameter
  std::vector<float> values = {};
};

struct SavePlan {
  std::string path;
  std::vector<SavedTensor> saved;
  std::vector<TensorToWrite> tensors;
};

// Looks the parameters up, for their shapes.
Status plan_tensors(Model& model, SavePlan& plan) {
  for (const SavedTensor& saved : plan.saved) {
    if (saved.own_values) {
      plan.tensors.push_back({saved.name, {int64_t(saved.values.size())}, saved.dtype, false});
      continue;
    }
    auto found = model.find(saved.parameter);
    if (!found.ok()) return found.status();
    const std::vector<int64_t>& shape = found.value()->shape;
    if (saved.permute_heads > 0 && shape[0] % (2 * saved.permute_heads) != 0) {
      return invalid_arg("The rows of " + saved.parameter + " can't be divided into " +
                         std::to_string(saved.permute_heads) + " heads");
    }
    plan.tensors.push_back({saved.name, shape, saved.dtype, false});
  }
  return {};
}

TensorSource source_of(Model& model, const SavePlan& plan, const AbortFlag* abort) {
  return [&model, &plan, abort](size_t index, std::vector<float>& scratch) -> Result<const void*> {
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    const SavedTensor& saved = plan.saved[index];
    if (saved.own_values) return static_cast<const void*>(saved.values.data());
    auto found = model.find(saved.parameter);
    if (!found.ok()) return found.status();
    const Parameter& parameter = *found.value();
    scratch.resize(size_t(parameter.count));
    SSRL_RETURN_IF_ERROR(model.read(parameter, scratch.data()));
    if (saved.permute_heads > 0) {
      const int64_t rows = parameter.shape[0];
      permute_rows(scratch.data(), rows, parameter.count / rows, saved.permute_heads);
    }
    return static_cast<const void*>(scratch.data());
  };
}

SavedTensor gguf_tensor_of(const Napi::Object& object) {
  SavedTensor saved;
  saved.name = string_of(object.Get("name"), "tensors.name");
  saved.dtype = string_of(object.Get("dtype"), "tensors.dtype");
  const Napi::Value values = object.Get("values");
  if (!values.IsUndefined()) {
    saved.own_values = true;
    saved.values = float32_array_of(values, "tensors.values");
    return saved;
  }
  saved.parameter = string_of(object.Get("parameter"), "tensors.parameter");
  const int64_t most = std::numeric_limits<int>::max() / 2;
  saved.permute_heads = int(integer_of(object.Get("permuteHeads"), "tensors.permuteHeads", 0, most));
  return saved;
}

Napi::Value undefined_of(Napi::Env env, Done&) {
  return env.Undefined();
}

}  // namespace

Napi::Value PolicyObject::write_safetensors(const Napi::CallbackInfo& info) {
  SavePlan plan;
  plan.path = string_of(info[0], "path");
  const Napi::Array names = array_of(info[1], "parameters");
  const std::string dtype = string_of(info[2], "dtype");
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = string_of(names.Get(i), "parameters");
    plan.saved.push_back({.name = name, .parameter = name, .dtype = dtype});
  }
  std::vector<std::pair<std::string, std::string>> metadata;
  const Napi::Object entries = object_of(info[3], "metadata");
  const Napi::Array keys = entries.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const std::string key = string_of(keys.Get(i), "metadata");
    metadata.emplace_back(key, string_of(entries.Get(key), "metadata." + key));
  }
  return run_on_policy<Done>(
      Value(), state_, {},
      [plan = std::move(plan), metadata = std::move(metadata)](
          PolicyState& state, const AbortFlag* abort) mutable -> Result<Done> {
        SSRL_RETURN_IF_ERROR(plan_tensors(*state.model, plan));
        SSRL_RETURN_IF_ERROR(
            ssrl::write_safetensors(plan.path, plan.tensors, metadata, source_of(*state.model, plan, abort)));
        return Done{};
      },
      undefined_of);
}

Napi::Value PolicyObject::write_gguf(const Napi::CallbackInfo& info) {
  SavePlan plan;
  plan.path = string_of(info[0], "path");
  const Napi::Array tensors = array_of(info[1], "tensors");
  for (uint32_t i = 0; i < tensors.Length(); ++i) {
    plan.saved.push_back(gguf_tensor_of(object_of(tensors.Get(i), "tensors")));
  }
  auto metadata = metadata_from_js(object_of(info[2], "metadata"));
  throw_if_error(info.Env(), metadata.status());
  AsyncOptions options;
  options.abort = abort_flag_of(info[3]);
  return run_on_policy<Done>(
      Value(), state_, options,
      [plan = std::move(plan), metadata = std::move(metadata.value())](
          PolicyState& state, const AbortFlag* abort) mutable -> Result<Done> {
        SSRL_RETURN_IF_ERROR(plan_tensors(*state.model, plan));
        SSRL_RETURN_IF_ERROR(
            ssrl::write_gguf(plan.path, plan.tensors, metadata, source_of(*state.model, plan, abort)));
        return Done{};
      },
      undefined_of);
}

}  // namespace ssrl
