#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace ssrl {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 64;

// Takes the header as a stream of events. Nothing is built but the list of tensors, and nesting deeper than
// the format has ends the parse, so the header's author decides neither depth nor memory.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(uint64_t data_begin, std::vector<TensorInfo>* tensors, Metadata* metadata)
      : data_begin_(data_begin), tensors_(tensors), metadata_(metadata) {}

  const std::string& problem() const { return problem_; }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a fraction"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShapeItem) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return fail("a size above 2^63");
      if (tensor_.shape.size() == kMaxDimensions) return fail("more than 64 sizes");
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsetItem) {
      if (offsets_ == 2) return fail("more than two data_offsets");
      (offsets_ == 0 ? begin_ : end_) = value;
      ++offsets_;
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kDtype) {
      tensor_.dtype = std::move(value);
      has_dtype_ = true;
      place_ = Place::kTensor;
      return true;
    }
    if (place_ == Place::kMetadataValue) {
      if (!metadata_keys_.insert(key_).second) return fail("the metadata key " + key_ + " twice");
      metadata_->push_back({key_, MetadataValue{ValueType::kString, std::move(value)}});
      place_ = Place::kMetadata;
      return true;
    }
    return unexpected("a string");
  }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTopValue) {
      place_ = tensor_.name == "__metadata__" ? Place::kMetadata : Place::kTensor;
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::kTop) {
      tensor_ = TensorInfo();
      tensor_.name = std::move(value);
      offsets_ = 0;
      has_dtype_ = has_shape_ = has_offsets_ = false;
      if (tensor_.name == "__metadata__" && std::exchange(has_metadata_, true))
        return fail("__metadata__ twice");
      place_ = Place::kTopValue;
    } else if (place_ == Place::kMetadata) {
      key_ = std::move(value);
      place_ = Place::kMetadataValue;
    } else if (value == "dtype" && !has_dtype_) {
      place_ = Place::kDtype;
    } else if (value == "shape" && !has_shape_) {
      place_ = Place::kShape;
    } else if (value == "data_offsets" && !has_offsets_) {
      place_ = Place::kOffsets;
    } else {
      return fail("the unknown or repeated field " + value);
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) return end_tensor();
    place_ = place_ == Place::kMetadata ? Place::kTop : Place::kEnd;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kShape) {
      place_ = Place::kShapeItem;
    } else if (place_ == Place::kOffsets) {
      place_ = Place::kOffsetItem;
    } else {
      return unexpected("a list");
    }
    return true;
  }

  bool end_array() override {
    (place_ == Place::kShapeItem ? has_shape_ : has_offsets_) = true;
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (problem_.empty()) problem_ = "no valid JSON at character " + std::to_string(position);
    return false;
  }

 private:
  enum class Place {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kDtype,
    kShape,
    kShapeItem,
    kOffsets,
    kOffsetItem,
    kEnd
  };

  bool fail(const std::string& what) {
    problem_ = what + (place_ > Place::kTop ? " in the entry of " + tensor_.name : std::string());
    return false;
  }
  bool unexpected(const char* what) { return fail(std::string(what) + " where none belongs"); }

  bool end_tensor() {
    if (!has_dtype_ || !has_shape_ || !has_offsets_ || offsets_ != 2) {
      return fail("not exactly one dtype, one shape and two data_offsets");
    }
    const DataType* type = find_data_type(tensor_.dtype);
    if (type == nullptr || !type->in_safetensors) return fail("the unknown dtype " + tensor_.dtype);
    uint64_t bytes;
    if (!tensor_bytes(tensor_.shape, *type, &bytes)) return fail("a shape of more than 2^63 bytes");
    if (end_ < begin_ || end_ - begin_ != bytes) {
      return fail("data_offsets " + std::to_string(begin_) + " to " + std::to_string(end_) +
                  " where shape and dtype take " + std::to_string(bytes) + " bytes");
    }
    if (__builtin_add_overflow(data_begin_, begin_, &tensor_.offset)) return fail("data_offsets above 2^64");
    tensor_.bytes = bytes;
    tensors_->push_back(std::move(tensor_));
    place_ = Place::kTop;
    return true;
  }

  uint64_t data_begin_;
  std::vector<TensorInfo>* tensors_;
  Metadata* metadata_;
  std::unordered_set<std::string> metadata_keys_;
  std::string problem_, key_;
  Place place_ = Place::kStart;
  TensorInfo tensor_;
  uint64_t begin_ = 0, end_ = 0;
  int offsets_ = 0;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false, has_metadata_ = false;
};

class Safetensors : public TensorFile {
 public:
  explicit Safetensors(std::unique_ptr<ReadFile> file) : TensorFile(std::move(file)) {}
  const char* format() const override { return "safetensors"; }

  Status read_header() {
    uint64_t length = 0;
    if (file_->size() < sizeof(length))
      return not_this_format("only " + std::to_string(file_->size()) + " bytes");
    SSRL_RETURN_IF_ERROR(file_->read(0, &length, sizeof(length)));
    const uint64_t room = file_->size() - sizeof(length);
    if (length > room || length > kMaxHeaderBytes) {
      return not_this_format("a header length of " + std::to_string(length) + " in a file of " +
                             std::to_string(file_->size()) + " bytes (truncated, or another format?)");
    }
    std::string header(length, '\0');
    SSRL_RETURN_IF_ERROR(file_->read(sizeof(length), header.data(), length));
    if (header.empty() || header[0] != '{') return not_this_format("a header that does not begin with {");
    HeaderReader reader(sizeof(length) + length, &tensors_, &metadata_);
    if (!nlohmann::json::sax_parse(header, &reader))
      return not_this_format("a header with " + reader.problem());
    return index_tensors(sizeof(length) + length, file_->size(), true);
  }

 private:
  Status not_this_format(const std::string& what) const {
    return model_format("Expected a safetensors file at " + path() + ", found " + what);
  }
};

}  // namespace

Result<std::unique_ptr<TensorFile>> open_safetensors(std::unique_ptr<ReadFile> file) try {
  auto opened = std::make_unique<Safetensors>(std::move(file));
  SSRL_RETURN_IF_ERROR(opened->read_header());
  return std::unique_ptr<TensorFile>(std::move(opened));
} catch (const std::bad_alloc&) {
  return Status(Code::kOutOfMemory, "No memory for the header of a safetensors file");
} catch (const std::exception& error) {
  return model_format(std::string("Could not read a safetensors header: ") + error.what());
}

Result<std::unique_ptr<TensorFile>> open_safetensors(const std::string& path) {
  auto file = ReadFile::open(path);
  if (!file.ok()) return file.status();
  return open_safetensors(std::move(file.value()));
}

}  // namespace ssrl
