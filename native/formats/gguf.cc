#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_set>

namespace ssrl {
namespace {

constexpr uint32_t kMaxDimensions = 4;
constexpr uint32_t kDefaultAlignment = 32;
// What the shortest metadata entry and the shortest tensor entry take: a bound on their counts.
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

int value_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return 0;
}

// Reads the header from front to back. The first failure sticks; values read after it are zero.
class Cursor {
 public:
  explicit Cursor(const ReadFile& file) : file_(file), buffer_(64 * 1024) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }

  void fail(const std::string& what) {
    if (ok()) {
      status_ = model_format("Expected a GGUF file at " + file_.path() + ", found " + what + " at byte " +
                             std::to_string(position_));
    }
  }

  bool read(void* out, uint64_t bytes) {
    if (!ok()) return false;
    if (bytes > remaining()) {
      fail("the end of the file inside the header (truncated?)");
      return false;
    }
    if (bytes > buffer_.size()) {
      status_ = file_.read(position_, out, bytes);
    } else if (position_ < buffer_begin_ || position_ + bytes > buffer_begin_ + buffer_used_) {
      buffer_begin_ = position_;
      buffer_used_ = std::min<uint64_t>(buffer_.size(), remaining());
      status_ = file_.read(position_, buffer_.data(), buffer_used_);
    }
    if (!ok()) return false;
    if (bytes <= buffer_.size()) std::memcpy(out, buffer_.data() + (position_ - buffer_begin_), bytes);
    position_ += bytes;
    return true;
  }

  template <typename T>
  T number() {
    T value{};
    return read(&value, sizeof(value)) ? value : T{};
  }

  // A length and that many bytes, appended to `out`.
  bool append_string(std::string* out) {
    const uint64_t length = number<uint64_t>();
    if (ok() && length > remaining()) fail("a string of " + std::to_string(length) + " bytes");
    if (!ok()) return false;
    const size_t before = out->size();
    out->resize(before + length);
    return read(out->data() + before, length);
  }

  std::string string() {
    std::string value;
    append_string(&value);
    return value;
  }

 private:
  const ReadFile& file_;
  std::vector<uint8_t> buffer_;
  uint64_t buffer_begin_ = 0, buffer_used_ = 0, position_ = 0;
  Status status_;
};

MetadataValue read_array(Cursor& cursor) {
  MetadataValue result;
  result.type = static_cast<ValueType>(cursor.number<uint32_t>());
  const uint64_t count = cursor.number<uint64_t>();
  const int size = value_bytes(result.type);
  if (result.type == ValueType::kString) {
    if (cursor.ok() && count > cursor.remaining() / 8)
      cursor.fail("an array of " + std::to_string(count) + " strings");
    StringArray strings;
    for (uint64_t i = 0; i < count && cursor.ok(); ++i) {
      if (cursor.append_string(&strings.bytes)) strings.ends.push_back(strings.bytes.size());
    }
    result.value = std::move(strings);
  } else if (size > 0) {
    if (cursor.ok() && count > cursor.remaining() / size)
      cursor.fail("an array of " + std::to_string(count) + " values");
    NumberArray numbers;
    if (cursor.ok()) {
      numbers.count = count;
      numbers.bytes.resize(count * static_cast<uint64_t>(size));
      cursor.read(numbers.bytes.data(), numbers.bytes.size());
    }
    result.value = std::move(numbers);
  } else {
    cursor.fail(result.type == ValueType::kArray ? "an array of arrays, which is not supported"
                                                 : "an array of an unknown type");
  }
  return result;
}

MetadataValue read_value(Cursor& cursor) {
  const auto type = static_cast<ValueType>(cursor.number<uint32_t>());
  switch (type) {
    case ValueType::kU8:
      return {type, uint64_t{cursor.number<uint8_t>()}};
    case ValueType::kU16:
      return {type, uint64_t{cursor.number<uint16_t>()}};
    case ValueType::kU32:
      return {type, uint64_t{cursor.number<uint32_t>()}};
    case ValueType::kU64:
      return {type, cursor.number<uint64_t>()};
    case ValueType::kI8:
      return {type, int64_t{cursor.number<int8_t>()}};
    case ValueType::kI16:
      return {type, int64_t{cursor.number<int16_t>()}};
    case ValueType::kI32:
      return {type, int64_t{cursor.number<int32_t>()}};
    case ValueType::kI64:
      return {type, cursor.number<int64_t>()};
    case ValueType::kF32:
      return {type, static_cast<double>(cursor.number<float>())};
    case ValueType::kF64:
      return {type, cursor.number<double>()};
    case ValueType::kBool:
      return {type, cursor.number<uint8_t>() != 0};
    case ValueType::kString:
      return {type, cursor.string()};
    case ValueType::kArray:
      return read_array(cursor);
  }
  cursor.fail("metadata of the unknown type " + std::to_string(static_cast<uint32_t>(type)));
  return {};
}

class Gguf : public TensorFile {
 public:
  explicit Gguf(std::unique_ptr<ReadFile> file) : TensorFile(std::move(file)) {}
  const char* format() const override { return "gguf"; }

  Status read_header() {
    Cursor cursor(*file_);
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
  void read_counts(Cursor& cursor, uint64_t* tensor_count, uint64_t* value_count) {
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

  void read_metadata(Cursor& cursor, uint64_t count) {
    std::unordered_set<std::string> keys;
    for (uint64_t i = 0; i < count && cursor.ok(); ++i) {
      std::string key = cursor.string();
      if (cursor.ok() && !keys.insert(key).second) cursor.fail("the metadata key " + key + " twice");
      MetadataValue value = read_value(cursor);
      if (cursor.ok()) metadata_.emplace_back(std::move(key), std::move(value));
    }
  }

  void read_alignment(Cursor& cursor, uint64_t* alignment) {
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

  void read_tensor(Cursor& cursor, uint64_t alignment) {
    TensorInfo tensor;
    tensor.name = cursor.string();
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
