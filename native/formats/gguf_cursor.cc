#include "formats/gguf_cursor.h"

#include <algorithm>
#include <cstring>

namespace ssrl {
namespace {

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

// Names must survive the way through JavaScript strings and back. (Other strings may be anything.)
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xc2 ? 0
                          : lead < 0xe0 ? 2
                          : lead < 0xf0 ? 3
                          : lead < 0xf5 ? 4
                                        : 0;
    if (length == 0 || i + length > text.size()) return false;
    uint32_t character = length == 1 ? lead : lead & (0x7fu >> length);
    for (size_t j = 1; j < length; ++j) {
      const auto next = static_cast<uint8_t>(text[i + j]);
      if ((next & 0xc0) != 0x80) return false;
      character = character << 6 | (next & 0x3fu);
    }
    const bool overlong = (length == 3 && character < 0x800) || (length == 4 && character < 0x10000);
    if (overlong || character > 0x10ffff || (character >= 0xd800 && character < 0xe000)) return false;
    i += length;
  }
  return true;
}

}  // namespace

void GgufCursor::fail(const std::string& what) {
  if (ok()) {
    status_ = model_format("Expected a GGUF file at " + file_.path() + ", found " + what + " at byte " +
                           std::to_string(position_));
  }
}

bool GgufCursor::read(void* out, uint64_t bytes) {
  if (!ok() || bytes == 0) return ok();
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

bool GgufCursor::append_string(std::string* out) {
  const uint64_t length = number<uint64_t>();
  if (ok() && length > remaining()) fail("a string of " + std::to_string(length) + " bytes");
  if (!ok()) return false;
  const size_t before = out->size();
  out->resize(before + length);
  return read(out->data() + before, length);
}

std::string GgufCursor::string() {
  std::string value;
  append_string(&value);
  return value;
}

std::string GgufCursor::name() {
  std::string value = string();
  if (!is_utf8(value)) fail("a name that is not UTF-8");
  return value;
}

MetadataValue GgufCursor::array() {
  MetadataValue result;
  result.type = static_cast<ValueType>(number<uint32_t>());
  const uint64_t count = number<uint64_t>();
  const int size = value_bytes(result.type);
  if (result.type == ValueType::kString) {
    if (ok() && count > remaining() / 8) fail("an array of " + std::to_string(count) + " strings");
    StringArray strings;
    for (uint64_t i = 0; i < count && ok(); ++i) {
      if (append_string(&strings.bytes)) strings.ends.push_back(strings.bytes.size());
    }
    result.value = std::move(strings);
  } else if (size > 0) {
    if (ok() && count > remaining() / size) fail("an array of " + std::to_string(count) + " values");
    NumberArray numbers;
    if (ok()) {
      numbers.count = count;
      numbers.bytes.resize(count * static_cast<uint64_t>(size));
      read(numbers.bytes.data(), numbers.bytes.size());
    }
    result.value = std::move(numbers);
  } else {
    fail(result.type == ValueType::kArray ? "an array of arrays, which is not supported"
                                          : "an array of an unknown type");
  }
  return result;
}

MetadataValue GgufCursor::value() {
  const auto type = static_cast<ValueType>(number<uint32_t>());
  switch (type) {
    case ValueType::kU8:
      return {type, uint64_t{number<uint8_t>()}};
    case ValueType::kU16:
      return {type, uint64_t{number<uint16_t>()}};
    case ValueType::kU32:
      return {type, uint64_t{number<uint32_t>()}};
    case ValueType::kU64:
      return {type, number<uint64_t>()};
    case ValueType::kI8:
      return {type, int64_t{number<int8_t>()}};
    case ValueType::kI16:
      return {type, int64_t{number<int16_t>()}};
    case ValueType::kI32:
      return {type, int64_t{number<int32_t>()}};
    case ValueType::kI64:
      return {type, number<int64_t>()};
    case ValueType::kF32:
      return {type, static_cast<double>(number<float>())};
    case ValueType::kF64:
      return {type, number<double>()};
    case ValueType::kBool:
      return {type, number<uint8_t>() != 0};
    case ValueType::kString:
      return {type, string()};
    case ValueType::kArray:
      return array();
  }
  fail("metadata of the unknown type " + std::to_string(static_cast<uint32_t>(type)));
  return {};
}

}  // namespace ssrl
