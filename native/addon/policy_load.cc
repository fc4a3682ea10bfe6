// loadPolicy and initializePolicy.
#include <utility>

#include "addon/arguments.h"
#include "addon/bindings.h"
#include "addon/devices.h"
#include "addon/policy.h"
#include "engine/exactness.h"
#include "engine/model_load.h"
#include "formats/tensor_file.h"

namespace ssrl {
namespace {

constexpr int64_t kMostSize = 0x7fffffff;

ModelConfig config_of(const Napi::Value& value) {
  const Napi::Object object = object_of(value, "config");
  const auto size = [&](const char* name) { return int(integer_of(object.Get(name), name, 1, kMostSize)); };
  const auto flag = [&](const char* name) { return boolean_of(object.Get(name), name); };
  ModelConfig config;
  config.architecture = string_of(object.Get("architecture"), "architecture");
  config.hidden = size("hiddenSize");
  config.ffn = size("intermediateSize");
  config.layers = size("numLayers");
  config.heads = size("numHeads");
  config.kv_heads = size("numKvHeads");
  config.head_dim = size("headDim");
  config.vocabulary = size("vocabSize");
  config.max_positions = size("maxPositions");
  config.rms_epsilon = float(number_of(object.Get("rmsNormEps"), "rmsNormEps"));
  config.rope_theta = number_of(object.Get("ropeTheta"), "ropeTheta");
  config.qkv_bias = flag("qkvBias");
  config.output_bias = flag("outputBias");
  config.mlp_bias = flag("mlpBias");
  config.qk_norm = flag("qkNorm");
  config.tied = flag("tieWordEmbeddings");
  if (const Napi::Value factors = object.Get("ropeFactors"); !factors.IsNull() && !factors.IsUndefined()) {
    config.rope_factors = float32_array_of(factors, "ropeFactors");
  }
  if (const Napi::Value value = object.Get("ropeScaling"); !value.IsNull() && !value.IsUndefined()) {
    const Napi::Object scaling = object_of(value, "ropeScaling");
    config.rope_factor = number_of(scaling.Get("factor"), "factor");
    config.rope_low_frequency = number_of(scaling.Get("lowFreqFactor"), "lowFreqFactor");
    config.rope_high_frequency = number_of(scaling.Get("highFreqFactor"), "highFreqFactor");
    config.rope_original_positions = number_of(scaling.Get("originalMaxPositions"), "originalMaxPositions");
  }
  return config;
}

DType dtype_of(const Napi::Value& value) {
  const std::string name = string_of(value, "dtype");
  if (name != "f32" && name != "bf16") throw_expected(value.Env(), "'f32' or 'bf16'", "dtype", value);
  return name == "f32" ? DType::kF32 : DType::kBF16;
}

struct ModelRequest {
  ModelConfig config;
  DType compute;
  int threads;
  std::string device;
};

ModelRequest request_of(const Napi::Object& options) {
  return {config_of(options.Get("config")), dtype_of(options.Get("dtype")),
          int(integer_of(options.Get("threads"), "threads", 1, 1024)),
          string_of(options.Get("device"), "device")};
}

using StatePointer = std::shared_ptr<PolicyState>;

// Compute thread: makes a model, fills it, and tries its exactness.
template <typename Fill>
Result<StatePointer> make_state(const ModelRequest& request, const Fill& fill) {
  SSRL_RETURN_IF_ERROR(check_config(request.config));
  auto device = find_device(request.device);
  if (!device.ok()) return device.status();
  auto model = Model::create(*device.value(), request.config, request.compute);
  if (!model.ok()) return model.status();
  SSRL_RETURN_IF_ERROR(fill(*model.value()));
  Workspace workspace;
  auto exact = check_exactness(*model.value(), workspace, request.threads);
  if (!exact.ok()) return exact.status();
  return std::make_shared<PolicyState>(std::move(model.value()), request.threads, exact.value());
}

Napi::Value state_to_js(Napi::Env env, StatePointer& state) {
  return wrap_policy(env, state);
}

std::vector<WeightSource> sources_of(const Napi::Array& array, size_t files) {
  std::vector<WeightSource> sources;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object source = object_of(array.Get(i), "sources");
    sources.push_back({string_of(source.Get("parameter"), "parameter"),
                       size_t(integer_of(source.Get("file"), "file", 0, int64_t(files) - 1)),
                       string_of(source.Get("tensor"), "tensor"),
                       int(integer_of(source.Get("permutedHeads"), "permutedHeads", 0, 1 << 20))});
  }
  return sources;
}

Result<StatePointer> load(const ModelRequest& request, const std::vector<std::string>& paths,
                          const LoadOptions& options) {
  std::vector<std::unique_ptr<TensorFile>> files;
  for (const std::string& path : paths) {
    auto file = open_tensor_file(path);
    if (!file.ok()) return file.status();
    files.push_back(std::move(file.value()));
  }
  return make_state(request, [&](Model& model) { return load_weights(model, files, options); });
}

Napi::Value load_policy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object options = object_of(info[0], "options");
  const ModelRequest request = request_of(options);
  const Napi::Array files = array_of(options.Get("files"), "files");
  std::vector<std::string> paths;
  for (uint32_t i = 0; i < files.Length(); ++i) paths.push_back(string_of(files.Get(i), "files"));
  auto sources = sources_of(array_of(options.Get("sources"), "sources"), paths.size());

  Napi::Value promise;
  auto settler = Settler::open(
      env, {.abort = abort_flag_of(options.Get("abort")), .callbacks = {options.Get("onProgress")}},
      &promise);
  const bool reports = options.Get("onProgress").IsFunction();
  auto work = [settler, request, paths, sources = std::move(sources), reports] {
    LoadOptions load_options{sources, request.threads, settler->abort().get(), {}};
    if (reports) {
      load_options.on_progress = [&](uint64_t loaded, uint64_t total) {
        settler->call(0, [loaded, total](Napi::Env env) -> std::vector<napi_value> {
          return {Napi::Number::New(env, double(loaded)), Napi::Number::New(env, double(total))};
        });
      };
    }
    settler->settle_with<StatePointer>([&] { return load(request, paths, load_options); }, state_to_js);
  };
  post_or_reject(settler, request.threads, std::move(work));
  return promise;
}

Napi::Value initialize_policy(const Napi::CallbackInfo& info) {
  const Napi::Object options = object_of(info[0], "options");
  const ModelRequest request = request_of(options);
  const uint64_t seed = uint64_t(integer_of(options.Get("seed"), "seed", 0, 9007199254740991));
  const float deviation = float(number_of(options.Get("standardDeviation"), "standardDeviation"));
  return run_async<StatePointer>(
      info.Env(), {.threads = request.threads},
      [request, seed, deviation] {
        return make_state(request, [&](Model& model) {
          return initialize_weights(model, seed, deviation, request.threads);
        });
      },
      state_to_js);
}

}  // namespace

void init_policy(Napi::Env env, Napi::Object exports) {
  PolicyObject::define(env);
  define_session(env);
  exports.Set("loadPolicy", Napi::Function::New(env, load_policy, "loadPolicy"));
  exports.Set("initializePolicy", Napi::Function::New(env, initialize_policy, "initializePolicy"));
}

}  // namespace ssrl
