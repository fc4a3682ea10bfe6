// The optimizer's state on disk: two f32 tensors a parameter, and the step count as metadata.
#include <charconv>

#include "engine/learner.h"
#include "formats/safetensors.h"
#include "formats/writer.h"

namespace ssrl {
namespace {

constexpr const char* kSteps = "steps";
constexpr const char* kValueHeadSteps = "value_head_steps";
constexpr const char* kValueHeadTensors[] = {"", "first_moment.", "second_moment."};
constexpr const char* kMoments[] = {"first_moment.", "second_moment."};

Status read_steps(const TensorFile& file, const char* name, int64_t* steps) {
  for (const auto& [key, value] : file.metadata()) {
    const std::string* text = std::get_if<std::string>(&value.value);
    if (key != name || text == nullptr) continue;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *steps);
    if (error == std::errc() && end == text->data() + text->size() && *steps >= 0) return {};
  }
  return model_format("Expected the step count of an optimizer in the metadata of " + file.path());
}

Result<const TensorInfo*> find_moment(const TensorFile& file, const std::string& name,
                                      const Parameter& parameter) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr || info->dtype != "F32" || info->shape != parameter.shape) {
    return model_format("Expected an F32 tensor " + name + " of the model's shape in " + file.path());
  }
  return info;
}

Status check_value_head(const TensorFile& file, int64_t width) {
  for (const char* prefix : kValueHeadTensors) {
    const std::string name = prefix + std::string(kValueHeadName);
    const TensorInfo* info = file.find(name);
    if (info == nullptr || info->dtype != "F32" || info->shape != std::vector<int64_t>{width}) {
      return model_format("Expected an F32 tensor " + name + " of " + std::to_string(width) + " values in " +
                          file.path());
    }
  }
  int64_t steps = 0;
  return read_steps(file, kValueHeadSteps, &steps);
}

}  // namespace

Status Learner::save_state(const std::string& path) const {
  const Layout& layout = model_.layout();
  const size_t count = layout.parameters.size();
  std::vector<TensorToWrite> tensors;
  for (const char* moment : kMoments) {
    for (const Parameter& parameter : layout.parameters) {
      tensors.push_back({.name = moment + parameter.name, .shape = parameter.shape, .dtype = "F32"});
    }
  }
  std::vector<Buffer*> own;
  std::vector<std::pair<std::string, std::string>> metadata = {{kSteps, std::to_string(steps_)}};
  if (value_head_ != nullptr) {
    own = {&value_head_->weight(), &value_head_->first_moment(), &value_head_->second_moment()};
    for (const char* prefix : kValueHeadTensors) {
      tensors.push_back(
          {.name = prefix + std::string(kValueHeadName), .shape = {value_head_->width()}, .dtype = "F32"});
    }
    metadata.emplace_back(kValueHeadSteps, std::to_string(value_head_->steps));
  }
  const auto source = [&](size_t index, std::vector<float>& scratch) -> Result<const void*> {
    if (index >= 2 * count) {
      auto values = value_head_->read(*own[index - 2 * count]);
      if (!values.ok()) return values.status();
      scratch = std::move(values.value());
      return static_cast<const void*>(scratch.data());
    }
    const Parameter& parameter = layout.parameters[index % count];
    const Buffer& moments = index < count ? first_moments_ : second_moments_;
    scratch.resize(size_t(parameter.count));
    const float* from = moments.floats() + layout.tensors[parameter.tensor].offset + parameter.offset;
    const Status status = model_.ops().copy_to_host(scratch.data(), from, scratch.size() * sizeof(float));
    if (!status.ok()) return status;
    return static_cast<const void*>(scratch.data());
  };
  return write_safetensors(path, tensors, metadata, source);
}

Status Learner::load_state(const std::string& path) {
  Result<std::unique_ptr<TensorFile>> opened = open_safetensors(path);
  if (!opened.ok()) return opened.status();
  const TensorFile& file = *opened.value();
  int64_t steps = 0;
  SSRL_RETURN_IF_ERROR(read_steps(file, kSteps, &steps));
  std::vector<const TensorInfo*> found;
  for (const char* moment : kMoments) {
    for (const Parameter& parameter : model_.layout().parameters) {
      const auto info = find_moment(file, moment + parameter.name, parameter);
      if (!info.ok()) return info.status();
      found.push_back(info.value());
    }
  }
  // Looked for before anything is changed.
  if (value_head_ != nullptr) SSRL_RETURN_IF_ERROR(check_value_head(file, value_head_->width()));
  Status status = read_moments(file, found);
  if (status.ok() && value_head_ != nullptr) status = read_value_head(file);
  steps_ = status.ok() ? steps : 0;
  if (status.ok()) return {};
  for (const Buffer* moments : {&first_moments_, &second_moments_}) {
    SSRL_RETURN_IF_ERROR(model_.ops().fill_zero(moments->data(), moments->bytes()));
  }
  return status;
}

Status Learner::read_value_head(const TensorFile& file) {
  ValueHead& head = *value_head_;
  Buffer* const own[] = {&head.weight(), &head.first_moment(), &head.second_moment()};
  std::vector<float> values(static_cast<size_t>(head.width()));
  for (size_t i = 0; i < 3; ++i) {
    const TensorInfo* info = file.find(kValueHeadTensors[i] + std::string(kValueHeadName));
    SSRL_RETURN_IF_ERROR(file.read_f32(*info, values.data()));
    SSRL_RETURN_IF_ERROR(head.write(*own[i], values));
  }
  SSRL_RETURN_IF_ERROR(read_steps(file, kValueHeadSteps, &head.steps));
  return head.repack();
}

Status Learner::read_moments(const TensorFile& file, const std::vector<const TensorInfo*>& found) {
  const Layout& layout = model_.layout();
  const size_t count = layout.parameters.size();
  std::vector<float> values;
  for (size_t i = 0; i < found.size(); ++i) {
    const Parameter& parameter = layout.parameters[i % count];
    values.resize(size_t(parameter.count));
    SSRL_RETURN_IF_ERROR(file.read_f32(*found[i], values.data()));
    const Buffer& moments = i < count ? first_moments_ : second_moments_;
    float* to = moments.floats() + layout.tensors[parameter.tensor].offset + parameter.offset;
    SSRL_RETURN_IF_ERROR(model_.ops().copy_from_host(to, values.data(), values.size() * sizeof(float)));
  }
  return {};
}

}  // namespace ssrl
