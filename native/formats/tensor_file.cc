#include "formats/tensor_file.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace ssrl {
namespace {

// Small enough to stay in the second-level cache between the read and the conversion.
constexpr size_t kChunkBytes = 1 << 20;

}  // namespace

bool tensor_bytes(const std::vector<int64_t>& shape, const DataType& type, uint64_t* bytes) {
  int64_t count = 1;
  for (int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return false;
  }
  const int64_t row = shape.empty() ? 1 : shape.back();
  if (row % type.block_elements != 0) return false;
  int64_t total;
  if (__builtin_mul_overflow(count / type.block_elements, static_cast<int64_t>(type.block_bytes), &total)) {
    return false;
  }
  *bytes = static_cast<uint64_t>(total);
  return true;
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

Status TensorFile::index_tensors(uint64_t begin, uint64_t end, bool dense) {
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
    const TensorInfo &x = tensors_[a], &y = tensors_[b];
    return x.offset != y.offset ? x.offset < y.offset : x.bytes < y.bytes;
  });
  uint64_t position = begin;
  for (size_t i : order) {
    const TensorInfo& tensor = tensors_[i];
    const auto place = [&] {
      return "tensor " + tensor.name + " of " + path() + " at byte " + std::to_string(tensor.offset) + " (" +
             std::to_string(tensor.bytes) + " bytes)";
    };
    if (tensor.offset > end || tensor.bytes > end - tensor.offset || tensor.offset < begin) {
      return model_format("Expected tensors to lie between bytes " + std::to_string(begin) + " and " +
                          std::to_string(end) + ", but " + place() +
                          " reaches outside. The file may be truncated");
    }
    if (tensor.offset < position)
      return model_format("Expected separate tensors, but " + place() + " overlaps another");
    if (dense && tensor.offset != position) {
      return model_format("Expected no hole before " + place() + ", but " +
                          std::to_string(tensor.offset - position) + " bytes belong to no tensor");
    }
    position = tensor.offset + tensor.bytes;
  }
  if (dense && position != end) {
    return model_format("Expected the tensors of " + path() + " to end with the file at byte " +
                        std::to_string(end) + ", but they end at " + std::to_string(position));
  }
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!by_name_.emplace(tensors_[i].name, i).second) {
      return model_format("Expected different names, but " + path() + " has tensor " + tensors_[i].name +
                          " twice");
    }
  }
  return {};
}

Status TensorFile::read_f32(const TensorInfo& info, float* out) const {
  const DataType* type = find_data_type(info.dtype);
  if (type == nullptr || type->to_f32 == nullptr) {
    return model_format("Expected weights in a floating-point or quantised type, but tensor " + info.name +
                        " of " + path() + " is " + info.dtype);
  }
  if (std::strcmp(type->name, "F32") == 0) return file_->read(info.offset, out, info.bytes);
  const int64_t blocks = info.count() / type->block_elements;
  const int64_t chunk = std::max<int64_t>(1, static_cast<int64_t>(kChunkBytes) / type->block_bytes);
  std::unique_ptr<uint8_t[]> buffer(
      new (std::nothrow) uint8_t[static_cast<size_t>(std::min(chunk, blocks) * type->block_bytes)]);
  if (buffer == nullptr) return {Code::kOutOfMemory, "No memory for the buffer that reads " + path()};
  for (int64_t first = 0; first < blocks; first += chunk) {
    const int64_t now = std::min(chunk, blocks - first);
    SSRL_RETURN_IF_ERROR(file_->read(info.offset + static_cast<uint64_t>(first * type->block_bytes),
                                     buffer.get(), static_cast<size_t>(now * type->block_bytes)));
    type->to_f32(buffer.get(), out + first * type->block_elements, now);
  }
  return {};
}

Status TensorFile::read_raw(const TensorInfo& info, void* out) const {
  return file_->read(info.offset, out, info.bytes);
}

Result<std::unique_ptr<TensorFile>> open_tensor_file(const std::string& path) {
  auto file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  char magic[4] = {};
  if (file.value()->size() >= sizeof(magic)) {
    SSRL_RETURN_IF_ERROR(file.value()->read(0, magic, sizeof(magic)));
  }
  if (std::memcmp(magic, "GGUF", sizeof(magic)) == 0) return open_gguf(std::move(file.value()));
  return open_safetensors(std::move(file.value()));
}

}  // namespace ssrl
