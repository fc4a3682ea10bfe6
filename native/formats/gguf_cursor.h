// The pieces of a GGUF header, read from front to back with every length held against what is left of the
// file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/tensor_file.h"

namespace ssrl {

// The first failure sticks; values read after it are zero or empty.
class GgufCursor {
 public:
  explicit GgufCursor(const ReadFile& file) : file_(file), buffer_(64 * 1024) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return file_.size() - position_; }

  // Fails with kModelFormat: "Expected a GGUF file ..., found `what` at byte ...".
  void fail(const std::string& what);

  bool read(void* out, uint64_t bytes);
  template <typename T>
  T number() {
    T value{};
    return read(&value, sizeof(value)) ? value : T{};
  }
  bool append_string(std::string* out);  // a length and that many bytes
  std::string string();
  std::string name();     // a string that must be UTF-8
  MetadataValue value();  // a type and what it says

 private:
  MetadataValue array();

  const ReadFile& file_;
  std::vector<uint8_t> buffer_;
  uint64_t buffer_begin_ = 0, buffer_used_ = 0, position_ = 0;
  Status status_;
};

}  // namespace ssrl
