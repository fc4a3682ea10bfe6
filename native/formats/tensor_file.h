// A file of named tensors, safetensors or GGUF. Opening reads and checks the header; tensors are read one by
// one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "formats/data_type.h"
#include "formats/file.h"
#include "status.h"

namespace ssrl {

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // row-major, outermost first; empty: a scalar
  std::string dtype;           // a DataType's name
  uint64_t offset = 0;         // of the first byte, from the start of the file
  uint64_t bytes = 0;

  int64_t count() const {
    int64_t product = 1;
    for (int64_t size : shape) product *= size;
    return product;
  }
};

// The value types of GGUF metadata, with the format's own numbers.
enum class ValueType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Kept as in the file, one piece of memory, so that a header cannot ask for more than it is long.
struct StringArray {
  std::string bytes;           // all strings behind one another
  std::vector<uint64_t> ends;  // string i is bytes[ends[i - 1], ends[i])
  std::string_view at(size_t i) const {
    const uint64_t begin = i == 0 ? 0 : ends[i - 1];
    return std::string_view(bytes).substr(begin, ends[i] - begin);
  }
};
struct NumberArray {
  uint64_t count = 0;
  std::vector<uint8_t> bytes;  // `count` little-endian elements of the value's type
};

struct MetadataValue {
  ValueType type = ValueType::kString;  // of the elements, for arrays
  std::variant<uint64_t, int64_t, double, bool, std::string, StringArray, NumberArray> value;
};
using Metadata = std::vector<std::pair<std::string, MetadataValue>>;

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  virtual const char* format() const = 0;  // "safetensors" or "gguf"

  const std::string& path() const { return file_->path(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;
  const Metadata& metadata() const { return metadata_; }

  // Writes info.count() values to `out`. kModelFormat for a type that holds no weights; kIo when the file
  // cannot be read, also when it became shorter since it was opened. Both may be called from several threads.
  Status read_f32(const TensorInfo& info, float* out) const;
  // The info.bytes bytes as they are in the file.
  Status read_raw(const TensorInfo& info, void* out) const;

 protected:
  explicit TensorFile(std::unique_ptr<ReadFile> file) : file_(std::move(file)) {}
  // The last step of opening: no two tensors share a name or a byte, none reaches outside [begin, end), and
  // with `dense` no byte of that range belongs to none.
  Status index_tensors(uint64_t begin, uint64_t end, bool dense);

  std::unique_ptr<ReadFile> file_;
  std::vector<TensorInfo> tensors_;
  Metadata metadata_;

 private:
  std::unordered_map<std::string_view, size_t> by_name_;  // views into tensors_
};

// Opens a safetensors or a GGUF file, told apart by the first bytes.
Result<std::unique_ptr<TensorFile>> open_tensor_file(const std::string& path);

// shape · type in bytes, with every multiplication checked; false when it overflows or the innermost size is
// not a multiple of the type's block.
bool tensor_bytes(const std::vector<int64_t>& shape, const DataType& type, uint64_t* bytes);

}  // namespace ssrl
