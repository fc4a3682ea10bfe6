#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ssrl {

Status check_memory(ops::Ops& ops, double bytes, const char* what) {
  // No machine has this much, and a size_t could overflow.
  constexpr double kMost = 1e15;
  // Untouched memory costs nothing, so asking for the whole need at once is the check.
  void* pointer = nullptr;
  const Status status = ops.allocate(static_cast<size_t>(std::min(bytes, kMost)), &pointer);
  if (status.ok()) ops.release(pointer);
  if (status.code() != Code::kOutOfMemory) return status;
  return {Code::kOutOfMemory, std::string(what) + ": " + status.message()};
}

Result<std::unique_ptr<Model>> Model::create(ops::Ops& ops, ModelConfig config, DType compute) {
  Status status = check_config(config);
  if (status.ok()) status = ops.supports(compute);
  if (!status.ok()) return status;
  auto shared = std::make_shared<const Shared>(std::move(config));
  const Layout& layout = shared->layout;
  double bytes = 4.0 * double(layout.elements);
  for (const TensorShape& tensor : layout.tensors) {
    if (tensor.matrix) bytes += double(tensor.rows) * double(tensor.columns) * double(size_of(compute));
  }
  status = check_memory(ops, bytes, "The weights of the model");
  if (!status.ok()) return status;
  std::unique_ptr<Model> model(new Model(ops, std::move(shared), compute));
  model->weights_ = std::make_shared<Weights>();
  model->weights_->packed.resize(layout.tensors.size());
  model->rope_ = std::make_shared<RopeTables>();
  const size_t slab_bytes = size_t(layout.elements) * sizeof(float);
  status = model->weights_->slab.allocate(ops, slab_bytes);
  if (status.ok()) status = ops.fill_zero(model->weights_->slab.data(), slab_bytes);
  if (!status.ok()) return status;
  return model;
}

float* Model::master(int tensor) const {
  return tensor < 0 ? nullptr : weights_->slab.floats() + layout().tensors[tensor].offset;
}

Result<const Parameter*> Model::find(const std::string& name) const {
  const auto found = layout().by_name.find(name);
  if (found == layout().by_name.end()) {
    return invalid_arg("Expected the name of a parameter of this model, such as " +
                       layout().parameters.front().name + ", but received " + name);
  }
  return &layout().parameters[found->second];
}

Status Model::read(const Parameter& parameter, float* values) const {
  return ops_->copy_to_host(values, master(parameter.tensor) + parameter.offset,
                            parameter.count * sizeof(float));
}

Status Model::write(const Parameter& parameter, const float* values) {
  SSRL_RETURN_IF_ERROR(make_unique());
  float* to = master(parameter.tensor);
  SSRL_RETURN_IF_ERROR(ops_->copy_from_host(to + parameter.offset, values, parameter.count * sizeof(float)));
  ++version_;
  const auto& packed = weights_->packed[parameter.tensor];
  return packed ? ops_->repack(to, packed.get()) : Status();
}

Status Model::make_unique() {
  if (!shares_weights()) return {};
  auto own = std::make_shared<Weights>();
  own->packed.resize(layout().tensors.size());
  double bytes = double(weights_->slab.bytes());
  for (const auto& packed : weights_->packed) bytes += packed ? double(packed->bytes()) : 0;
  SSRL_RETURN_IF_ERROR(check_memory(*ops_, bytes, "Weights of its own, apart from those of its clone"));
  SSRL_RETURN_IF_ERROR(own->slab.allocate(*ops_, weights_->slab.bytes()));
  SSRL_RETURN_IF_ERROR(ops_->copy(own->slab.data(), weights_->slab.data(), own->slab.bytes()));
  for (size_t i = 0; i < layout().tensors.size(); ++i) {
    if (!weights_->packed[i]) continue;
    const TensorShape& shape = layout().tensors[i];
    SSRL_RETURN_IF_ERROR(
        ops_->pack(own->slab.floats() + shape.offset, shape.rows, shape.columns, compute_, &own->packed[i]));
  }
  weights_ = std::move(own);
  return {};
}

Status Model::repack() {
  ++version_;
  for (size_t i = 0; i < layout().tensors.size(); ++i) {
    const TensorShape& shape = layout().tensors[i];
    if (!shape.matrix) continue;
    auto& packed = weights_->packed[i];
    SSRL_RETURN_IF_ERROR(packed ? ops_->repack(master(int(i)), packed.get())
                                : ops_->pack(master(int(i)), shape.rows, shape.columns, compute_, &packed));
  }
  return {};
}

std::unique_ptr<Model> Model::clone() const {
  std::unique_ptr<Model> copy(new Model(*ops_, shared_, compute_));
  copy->weights_ = weights_;
  copy->rope_ = rope_;
  copy->version_ = version_;
  return copy;
}

}  // namespace ssrl
