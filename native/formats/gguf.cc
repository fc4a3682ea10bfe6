#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_set>

#include "formats/gguf_cursor.h"

namespace ssrl {
namespace {

constexpr uint32_t kMaxDimensions = 4;
constexpr uint32_t kDefaultAlignment = 32;
// What the shortest metadata entry and the shortest tensor entry take: a bound on their counts.
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

class Gguf : public TensorFile {
 public:
  explicit Gguf(std::unique_ptr<ReadFile> file) : TensorFile(std::move(file)) {}
  const char* format() const override { return "gguf"; }

  Status read_header() {
    GgufCursor cursor(*file_);
    uint64_t tensor_count = 0, value_count = 0;
    read_counts(cursor, &tensor_count, &value_count);
    read_metadata(cursor, value_count);
    uint64_t alignment = kDefaultAlignment;
    read_alignment(cursor, &alignment);
    for (uint64_t i = 0; i < tensor_count && cursor.ok(); ++i) read_tensor(cursor, alignment);
    SSRL_RETURN_IF_ERROR(cursor.status());
    // A file without tensors may end right after its header, before the padding.
    const uint64_t begin =
        std::min((cursor.position() + alignment - 1) / alignment * alignment, file_->size());
    for (TensorInfo& tensor : tensors_) {
      if (__builtin_add_overflow(tensor.offset, begin, &tensor.offset)) {
        return model_format("Expected tensor " + tensor.name + " of " + path() +
                            " inside the file, its offset is " + std::to_string(tensor.offset));
      }
    }
    return index_tensors(begin, file_->size(), false);
  }

 private:
  void read_counts(GgufCursor& cursor, uint64_t* tensor_count, uint64_t* value_count) {
    char magic[4] = {};
    cursor.read(magic, sizeof(magic));
    if (cursor.ok() && std::memcmp(magic, "GGUF", sizeof(magic)) != 0) cursor.fail("another file type");
    const auto version = cursor.number<uint32_t>();
    if (cursor.ok() && version != 2 && version != 3) {
      const bool swapped = (version & 0xffff) == 0 && version != 0;
      cursor.fail(swapped ? "a big-endian file, which is not supported"
                          : "version " + std::to_string(version) + " (2 and 3 are supported)");
    }
    *tensor_count = cursor.number<uint64_t>();
    *value_count = cursor.number<uint64_t>();
    if (!cursor.ok()) return;
    if (*tensor_count > cursor.remaining() / kMinTensorBytes) {
      cursor.fail("a count of " + std::to_string(*tensor_count) + " tensors, more than the file could hold,");
    } else if (*value_count > cursor.remaining() / kMinEntryBytes) {
      cursor.fail("a count of " + std::to_string(*value_count) +
                  " metadata entries, more than the file could hold,");
    }
  }

  void read_metadata(GgufCursor& cursor, uint64_t count) {
    std::unordered_set<std::string> keys;
    for (uint64_t i = 0; i < count && cursor.ok(); ++i) {
      std::string key = cursor.name();
      if (cursor.ok() && !keys.insert(key).second) cursor.fail("the metadata key " + key + " twice");
      MetadataValue value = cursor.value();
      if (cursor.ok()) metadata_.emplace_back(std::move(key), std::move(value));
    }
  }

  void read_alignment(GgufCursor& cursor, uint64_t* alignment) {
    for (const auto& [key, value] : metadata_) {
      if (key != "general.alignment") continue;
      const uint64_t* number = std::get_if<uint64_t>(&value.value);
      if (number == nullptr || value.type != ValueType::kU32 || *number == 0 ||
          (*number & (*number - 1)) != 0) {
        return cursor.fail("a general.alignment that is not a power of two in 32 bits");
      }
      *alignment = *number;
    }
  }

  void read_tensor(GgufCursor& cursor, uint64_t alignment) {
    TensorInfo tensor;
    tensor.name = cursor.name();
    const auto dimensions = cursor.number<uint32_t>();
    if (cursor.ok() && dimensions > kMaxDimensions) {
      return cursor.fail("tensor " + tensor.name + " with " + std::to_string(dimensions) + " dimensions");
    }
    for (uint32_t i = 0; i < dimensions; ++i) tensor.shape.push_back(cursor.number<int64_t>());
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    const auto type_id = cursor.number<uint32_t>();
    tensor.offset = cursor.number<uint64_t>();
    if (!cursor.ok()) return;
    const DataType* type = find_gguf_data_type(type_id);
    if (type == nullptr) {
      const char* name = unsupported_gguf_type(type_id);
      return cursor.fail(
          "tensor " + tensor.name + " of " +
          (name != nullptr ? "type " + std::string(name) : "the unknown type " + std::to_string(type_id)) +
          " (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are supported)");
    }
    tensor.dtype = type->name;
    if (!tensor_bytes(tensor.shape, *type, &tensor.bytes)) {
      return cursor.fail("tensor " + tensor.name + " with a shape that " + tensor.dtype + " cannot have");
    }
    if (tensor.offset % alignment != 0)
      return cursor.fail("tensor " + tensor.name + " at an unaligned offset");
    tensors_.push_back(std::move(tensor));
  }
};

// Moves row `from(i)` to row i within each head.
template <typename From>
void reorder_heads(float* data, int64_t rows, int64_t columns, int heads, From from) {
  const int64_t head_rows = rows / heads;
  std::vector<float> copy(static_cast<size_t>(head_rows * columns));
  for (int head = 0; head < heads; ++head, data += head_rows * columns) {
    std::copy(data, data + copy.size(), copy.begin());
    for (int64_t row = 0; row < head_rows; ++row) {
      const float* source = copy.data() + from(row, head_rows / 2) * columns;
      std::copy(source, source + columns, data + row * columns);
    }
  }
}

}  // namespace

Result<std::unique_ptr<TensorFile>> open_gguf(std::unique_ptr<ReadFile> file) try {
  auto opened = std::make_unique<Gguf>(std::move(file));
  SSRL_RETURN_IF_ERROR(opened->read_header());
  return std::unique_ptr<TensorFile>(std::move(opened));
} catch (const std::bad_alloc&) {
  return Status(Code::kOutOfMemory, "No memory for the header of a GGUF file");
}

Result<std::unique_ptr<TensorFile>> open_gguf(const std::string& path) {
  auto file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  return open_gguf(std::move(file.value()));
}

void unpermute_rows(float* data, int64_t rows, int64_t columns, int heads) {
  reorder_heads(data, rows, columns, heads,
                [](int64_t row, int64_t half) { return 2 * (row % half) + row / half; });
}

void permute_rows(float* data, int64_t rows, int64_t columns, int heads) {
  reorder_heads(data, rows, columns, heads,
                [](int64_t row, int64_t half) { return row % 2 * half + row / 2; });
}

}  // namespace ssrl
