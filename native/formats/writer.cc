#include "formats/writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

namespace ssrl {
namespace {

constexpr uint64_t kGgufAlignment = 32;
constexpr int64_t kChunkElements = 1 << 18;

uint64_t align(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

// Every tensor's type and size, after the checks that both formats share.
struct Plan {
  std::vector<const DataType*> types;
  std::vector<uint64_t> bytes;
};

Result<Plan> plan_tensors(const std::vector<TensorToWrite>& tensors, bool gguf) {
  Plan plan;
  std::unordered_set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    const DataType* type = find_data_type(tensor.dtype);
    const bool known = type != nullptr && (gguf ? type->gguf_id >= 0 : type->in_safetensors);
    if (!known || (!tensor.raw && type->from_f32 == nullptr)) {
      return invalid_arg("Expected a type that can be written for tensor " + tensor.name + ", received " +
                         tensor.dtype);
    }
    uint64_t bytes;
    if (!tensor_bytes(tensor.shape, *type, &bytes)) {
      return invalid_arg("Tensor " + tensor.name + " has a shape that " + tensor.dtype + " cannot have" +
                         (type->block_elements > 1
                              ? ": its rows must be a multiple of " + std::to_string(type->block_elements)
                              : std::string()));
    }
    if (!names.insert(tensor.name).second)
      return invalid_arg("Expected different names, received " + tensor.name + " twice");
    plan.types.push_back(type);
    plan.bytes.push_back(bytes);
  }
  return plan;
}

// A value that is finite but becomes infinite (F16 ends at 65,504), or one that a block scale cannot express.
bool fits(const DataType& type, const float* values, int64_t count) {
  const bool f16 = std::strcmp(type.name, "F16") == 0;
  if (!f16 && type.block_elements == 1) return true;
  for (int64_t i = 0; i < count; ++i) {
    if (f16 ? std::isfinite(values[i]) && std::fabs(values[i]) >= 65520.0f : !std::isfinite(values[i]))
      return false;
  }
  return true;
}

Status write_tensor(WriteFile& file, const TensorToWrite& tensor, const DataType& type, uint64_t bytes,
                    const void* data) {
  if (bytes == 0) return {};
  if (tensor.raw || std::strcmp(type.name, "F32") == 0) return file.write(data, bytes);
  const float* values = static_cast<const float*>(data);
  const auto blocks = static_cast<int64_t>(bytes) / type.block_bytes;
  const int64_t chunk = kChunkElements / type.block_elements;
  std::vector<uint8_t> buffer(static_cast<size_t>(std::min(chunk, blocks) * type.block_bytes));
  for (int64_t first = 0; first < blocks; first += chunk) {
    const int64_t now = std::min(chunk, blocks - first);
    const float* part = values + first * type.block_elements;
    if (!fits(type, part, now * type.block_elements)) {
      return invalid_arg("Tensor " + tensor.name + " has values that " + tensor.dtype +
                         " cannot hold: write it as F32 or BF16");
    }
    type.from_f32(part, buffer.data(), now);
    SSRL_RETURN_IF_ERROR(file.write(buffer.data(), static_cast<size_t>(now * type.block_bytes)));
  }
  return {};
}

Result<std::string> safetensors_header(const std::vector<TensorToWrite>& tensors, const Plan& plan,
                                       const std::vector<size_t>& order,
                                       const std::vector<std::pair<std::string, std::string>>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metadata) header["__metadata__"][key] = value;
  uint64_t position = 0;
  // Appended as text: an ordered_json object searches its keys one by one.
  std::string text = header.dump();
  text.pop_back();
  for (size_t i : order) {
    if (tensors[i].name == "__metadata__") return invalid_arg("A tensor cannot be called __metadata__");
    const nlohmann::ordered_json entry = {{"dtype", tensors[i].dtype},
                                          {"shape", tensors[i].shape},
                                          {"data_offsets", {position, position + plan.bytes[i]}}};
    if (text.size() > 1) text += ',';
    text += nlohmann::ordered_json(tensors[i].name).dump() + ':' + entry.dump();
    position += plan.bytes[i];
  }
  text += '}';
  text.resize(align(text.size(), 8), ' ');
  return text;
}

// A GGUF header in memory; strings are a length and their bytes, numbers are as the machine has them.
class Header {
 public:
  const std::string& bytes() const { return bytes_; }

  template <typename T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void string(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_.append(value);
  }
  void value(const MetadataValue& entry) {
    const bool array =
        std::holds_alternative<StringArray>(entry.value) || std::holds_alternative<NumberArray>(entry.value);
    if (array) number(static_cast<uint32_t>(ValueType::kArray));
    number(static_cast<uint32_t>(entry.type));
    std::visit([&](const auto& held) { content(entry.type, held); }, entry.value);
  }

 private:
  void content(ValueType, const std::string& text) { string(text); }
  void content(ValueType, const StringArray& strings) {
    number<uint64_t>(strings.ends.size());
    for (size_t i = 0; i < strings.ends.size(); ++i) string(strings.at(i));
  }
  void content(ValueType, const NumberArray& numbers) {
    number<uint64_t>(numbers.count);
    bytes_.append(reinterpret_cast<const char*>(numbers.bytes.data()), numbers.bytes.size());
  }
  void content(ValueType, bool value) { number<uint8_t>(value); }
  void content(ValueType type, double value) {
    if (type == ValueType::kF32) return number(static_cast<float>(value));
    number(value);
  }
  void content(ValueType type, uint64_t value) { integer(type, value); }
  void content(ValueType type, int64_t value) { integer(type, static_cast<uint64_t>(value)); }
  // Little-endian two's complement: the low bytes are the number in every width.
  void integer(ValueType type, uint64_t value) {
    const bool one = type == ValueType::kU8 || type == ValueType::kI8;
    const bool two = type == ValueType::kU16 || type == ValueType::kI16;
    const bool four = type == ValueType::kU32 || type == ValueType::kI32;
    bytes_.append(reinterpret_cast<const char*>(&value), one ? 1 : two ? 2 : four ? 4 : 8);
  }

  std::string bytes_;
};

std::string gguf_header(const std::vector<TensorToWrite>& tensors, const Plan& plan,
                        const Metadata& metadata) {
  Header header;
  for (char c : {'G', 'G', 'U', 'F'}) header.number(c);
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    header.string(key);
    header.value(value);
  }
  uint64_t position = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    header.string(tensors[i].name);
    header.number<uint32_t>(static_cast<uint32_t>(tensors[i].shape.size()));
    for (auto size = tensors[i].shape.rbegin(); size != tensors[i].shape.rend(); ++size)
      header.number<int64_t>(*size);
    header.number<uint32_t>(static_cast<uint32_t>(plan.types[i]->gguf_id));
    header.number<uint64_t>(position);
    position = align(position + plan.bytes[i], kGgufAlignment);
  }
  return header.bytes();
}

Status check_gguf(const std::vector<TensorToWrite>& tensors, const Metadata& metadata) {
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.shape.size() > 4)
      return invalid_arg("GGUF tensors have at most 4 dimensions, " + tensor.name + " has more");
  }
  std::unordered_set<std::string_view> keys;
  for (const auto& entry : metadata) {
    if (entry.first == "general.alignment")
      return invalid_arg("general.alignment cannot be set: the alignment is 32");
    if (!keys.insert(entry.first).second)
      return invalid_arg("Expected different metadata keys, received " + entry.first + " twice");
  }
  return {};
}

}  // namespace

Status write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                         const std::vector<std::pair<std::string, std::string>>& metadata,
                         const TensorSource& source) try {
  const auto plan = plan_tensors(tensors, false);
  if (!plan.ok()) return plan.status();
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return plan.value().types[a]->block_bytes > plan.value().types[b]->block_bytes;
  });
  const auto header = safetensors_header(tensors, plan.value(), order, metadata);
  if (!header.ok()) return header.status();
  auto file = WriteFile::create(path);
  if (!file.ok()) return file.status();
  const uint64_t length = header.value().size();
  SSRL_RETURN_IF_ERROR(file.value()->write(&length, sizeof(length)));
  SSRL_RETURN_IF_ERROR(file.value()->write(header.value().data(), length));
  std::vector<float> scratch;
  for (size_t i : order) {
    const auto data = source(i, scratch);
    if (!data.ok()) return data.status();
    SSRL_RETURN_IF_ERROR(
        write_tensor(*file.value(), tensors[i], *plan.value().types[i], plan.value().bytes[i], data.value()));
  }
  return file.value()->finish();
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "No memory to write " + path};
} catch (const nlohmann::json::exception&) {
  return invalid_arg("Expected names and metadata in UTF-8 for " + path);
}

Status write_gguf(const std::string& path, const std::vector<TensorToWrite>& tensors,
                  const Metadata& metadata, const TensorSource& source) try {
  const auto plan = plan_tensors(tensors, true);
  if (!plan.ok()) return plan.status();
  SSRL_RETURN_IF_ERROR(check_gguf(tensors, metadata));
  auto file = WriteFile::create(path);
  if (!file.ok()) return file.status();
  WriteFile& out = *file.value();
  const std::string header = gguf_header(tensors, plan.value(), metadata);
  SSRL_RETURN_IF_ERROR(out.write(header.data(), header.size()));
  SSRL_RETURN_IF_ERROR(out.pad_to(align(out.position(), kGgufAlignment)));
  std::vector<float> scratch;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto data = source(i, scratch);
    if (!data.ok()) return data.status();
    SSRL_RETURN_IF_ERROR(
        write_tensor(out, tensors[i], *plan.value().types[i], plan.value().bytes[i], data.value()));
    // The last tensor too: readers count the padding into the size of the data.
    SSRL_RETURN_IF_ERROR(out.pad_to(align(out.position(), kGgufAlignment)));
  }
  return out.finish();
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "No memory to write " + path};
}

}  // namespace ssrl
