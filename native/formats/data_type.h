// The element types of weight files: how many bytes a block of elements takes, and how it becomes f32.
#pragma once

#include <cstdint>
#include <string_view>

namespace ssrl {

struct DataType {
  const char* name;    // "F32", "BF16", "Q4_K", "I64"
  int block_elements;  // 1 for plain types
  int block_bytes;
  int gguf_id;  // the number in GGUF files, -1: not part of that format
  bool in_safetensors;
  // Reads `blocks` blocks; null for types that hold no weights (integers, booleans, F64, F8).
  void (*to_f32)(const uint8_t* source, float* out, int64_t blocks);
  // Writes `blocks` blocks; null for types that are only read.
  void (*from_f32)(const float* values, uint8_t* out, int64_t blocks);
};

// Null when the name or number is unknown or not supported.
const DataType* find_data_type(std::string_view name);
const DataType* find_gguf_data_type(uint32_t id);
// The name of a GGUF type that exists but is not read ("Q2_K", "IQ4_NL"), or null for an unknown number.
const char* unsupported_gguf_type(uint32_t id);

}  // namespace ssrl
