#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

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
  for (const TensorShape& tensor : layout.tensors) model->weights_->offsets.push_back(tensor.offset);
  model->rope_ = std::make_shared<RopeTables>();
  const size_t slab_bytes = size_t(layout.elements) * sizeof(float);
  status = model->weights_->slab.allocate(ops, slab_bytes);
  if (status.ok()) status = ops.fill_zero(model->weights_->slab.data(), slab_bytes);
  if (!status.ok()) return status;
  return model;
}

float* Model::master(int tensor) const {
  const int64_t offset = tensor < 0 ? -1 : weights_->offsets[tensor];
  return offset < 0 ? nullptr : weights_->slab.floats() + offset;
}

Status Model::embed(const int32_t* ids, int64_t tokens, float* x) const {
  const float* table = master(layout().embedding);
  if (table == nullptr) return ops_->unpack_rows(packed(layout().embedding), ids, tokens, x);
  return ops_->embedding(ids, tokens, table, config().hidden, compute_, x);
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
  const size_t bytes = parameter.count * sizeof(float);
  const float* from = master(parameter.tensor);
  if (from != nullptr) return ops_->copy_to_host(values, from + parameter.offset, bytes);
  const int64_t columns = layout().tensors[parameter.tensor].columns;
  std::vector<int32_t> rows(size_t(parameter.count / columns));
  std::iota(rows.begin(), rows.end(), int32_t(parameter.offset / columns));
  Buffer unpacked;
  SSRL_RETURN_IF_ERROR(unpacked.allocate(*ops_, bytes));
  SSRL_RETURN_IF_ERROR(
      ops_->unpack_rows(packed(parameter.tensor), rows.data(), int64_t(rows.size()), unpacked.floats()));
  return ops_->copy_to_host(values, unpacked.data(), bytes);
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
  if (frozen_) return invalid_arg("Expected a policy that can be changed but received a frozen clone");
  if (shares_weights()) {
    auto own = std::make_shared<Weights>();
    own->offsets = weights_->offsets;
    own->packed = weights_->packed;
    double bytes = double(weights_->slab.bytes());
    for (const auto& packed : own->packed) bytes += packed ? double(packed->bytes()) : 0;
    SSRL_RETURN_IF_ERROR(check_memory(*ops_, bytes, "Weights of its own, apart from those of its clone"));
    SSRL_RETURN_IF_ERROR(own->slab.allocate(*ops_, weights_->slab.bytes()));
    SSRL_RETURN_IF_ERROR(ops_->copy(own->slab.data(), weights_->slab.data(), own->slab.bytes()));
    weights_ = std::move(own);
  }
  for (size_t i = 0; i < layout().tensors.size(); ++i) {
    auto& packed = weights_->packed[i];
    if (!packed || packed.use_count() == 1) continue;
    packed->trim();  // who keeps it may never train
    SSRL_RETURN_IF_ERROR(pack(int(i), &packed));
  }
  return {};
}

Status Model::pack(int tensor, std::shared_ptr<ops::PackedWeight>* out) const {
  const TensorShape& shape = layout().tensors[tensor];
  std::unique_ptr<ops::PackedWeight> packed;
  SSRL_RETURN_IF_ERROR(ops_->pack(master(tensor), shape.rows, shape.columns, compute_, &packed));
  *out = std::move(packed);
  return {};
}

Status Model::repack() {
  ++version_;
  for (size_t i = 0; i < layout().tensors.size(); ++i) {
    if (!layout().tensors[i].matrix) continue;
    auto& packed = weights_->packed[i];
    SSRL_RETURN_IF_ERROR(packed ? ops_->repack(master(int(i)), packed.get()) : pack(int(i), &packed));
  }
  return {};
}

Status Model::update(ops::AdamW step) {
  ++version_;
  const ops::AdamW all = step;
  for (size_t i = 0; i < layout().tensors.size(); ++i) {
    const TensorShape& shape = layout().tensors[i];
    step.weight = master(int(i));
    step.packed = weights_->packed[i].get();
    step.gradient = all.gradient + shape.offset;
    step.first_moment = all.first_moment + shape.offset;
    step.second_moment = all.second_moment + shape.offset;
    step.count = shape.rows * shape.columns;
    SSRL_RETURN_IF_ERROR(ops_->adamw(step));
  }
  return {};
}

std::unique_ptr<Model> Model::clone() const {
  std::unique_ptr<Model> copy(new Model(*ops_, shared_, compute_));
  copy->frozen_ = frozen_;
  copy->weights_ = weights_;
  copy->rope_ = rope_;
  copy->version_ = version_;
  return copy;
}

Result<std::unique_ptr<Model>> Model::clone_frozen() const {
  std::unique_ptr<Model> copy = clone();
  if (frozen_) return copy;
  auto rest = std::make_shared<Weights>();
  rest->packed = weights_->packed;
  int64_t elements = 0;
  for (const TensorShape& shape : layout().tensors) {
    rest->offsets.push_back(shape.matrix ? -1 : elements);
    if (!shape.matrix) elements += shape.elements();
  }
  Status status = rest->slab.allocate(*ops_, size_t(elements) * sizeof(float));
  for (size_t i = 0; i < rest->offsets.size() && status.ok(); ++i) {
    const TensorShape& shape = layout().tensors[i];
    if (shape.matrix) continue;
    status = ops_->copy(rest->slab.floats() + rest->offsets[i], master(int(i)),
                        size_t(shape.rows * shape.columns) * sizeof(float));
  }
  if (!status.ok()) return status;
  copy->weights_ = std::move(rest);
  copy->frozen_ = true;
  return copy;
}

}  // namespace ssrl
