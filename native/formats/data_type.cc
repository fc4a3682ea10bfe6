#include "formats/data_type.h"

#include <cstring>

#include "formats/dequantize.h"
#include "formats/half.h"
#include "formats/quantize.h"

namespace ssrl {
namespace {

// memcpy throughout: nothing promises that a tensor of a file is aligned in the buffer.
void copy_f32(const uint8_t* source, float* out, int64_t count) {
  std::memcpy(out, source, static_cast<size_t>(count) * sizeof(float));
}

void write_f32(const float* values, uint8_t* out, int64_t count) {
  std::memcpy(out, values, static_cast<size_t>(count) * sizeof(float));
}

void convert_f16(const uint8_t* source, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, sizeof(bits));
    out[i] = f32_from_f16(bits);
  }
}

void convert_bf16(const uint8_t* source, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, sizeof(bits));
    out[i] = f32_from_bf16(bits);
  }
}

constexpr DataType kTypes[] = {
    {"F32", 1, 4, 0, true, copy_f32, write_f32},
    {"F16", 1, 2, 1, true, convert_f16, quantize_f16},
    {"BF16", 1, 2, 30, true, convert_bf16, quantize_bf16},
    {"Q4_0", 32, kQ4_0Bytes, 2, false, dequantize_q4_0, nullptr},
    {"Q4_1", 32, kQ4_1Bytes, 3, false, dequantize_q4_1, nullptr},
    {"Q5_0", 32, kQ5_0Bytes, 6, false, dequantize_q5_0, nullptr},
    {"Q5_1", 32, kQ5_1Bytes, 7, false, dequantize_q5_1, nullptr},
    {"Q8_0", 32, kQ8_0Bytes, 8, false, dequantize_q8_0, quantize_q8_0},
    {"Q4_K", 256, kQ4_KBytes, 12, false, dequantize_q4_k, nullptr},
    {"Q5_K", 256, kQ5_KBytes, 13, false, dequantize_q5_k, nullptr},
    {"Q6_K", 256, kQ6_KBytes, 14, false, dequantize_q6_k, nullptr},
    {"I8", 1, 1, 24, true, nullptr, nullptr},
    {"I16", 1, 2, 25, true, nullptr, nullptr},
    {"I32", 1, 4, 26, true, nullptr, nullptr},
    {"I64", 1, 8, 27, true, nullptr, nullptr},
    {"F64", 1, 8, 28, true, nullptr, nullptr},
    {"U8", 1, 1, -1, true, nullptr, nullptr},
    {"U16", 1, 2, -1, true, nullptr, nullptr},
    {"U32", 1, 4, -1, true, nullptr, nullptr},
    {"U64", 1, 8, -1, true, nullptr, nullptr},
    {"BOOL", 1, 1, -1, true, nullptr, nullptr},
    {"F8_E4M3", 1, 1, -1, true, nullptr, nullptr},
    {"F8_E5M2", 1, 1, -1, true, nullptr, nullptr},
};

struct GgufName {
  uint32_t id;
  const char* name;
};
constexpr GgufName kUnsupported[] = {
    {4, "Q4_2"},        {5, "Q4_3"},        {9, "Q8_1"},        {10, "Q2_K"},    {11, "Q3_K"},
    {15, "Q8_K"},       {16, "IQ2_XXS"},    {17, "IQ2_XS"},     {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"},     {21, "IQ3_S"},      {22, "IQ2_S"},      {23, "IQ4_XS"},  {29, "IQ1_M"},
    {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},   {35, "TQ2_0"},
    {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {39, "MXFP4"},   {40, "NVFP4"},
};

}  // namespace

const DataType* find_data_type(std::string_view name) {
  for (const DataType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

const DataType* find_gguf_data_type(uint32_t id) {
  for (const DataType& type : kTypes) {
    if (type.gguf_id >= 0 && static_cast<uint32_t>(type.gguf_id) == id) return &type;
  }
  return nullptr;
}

const char* unsupported_gguf_type(uint32_t id) {
  for (const GgufName& type : kUnsupported) {
    if (type.id == id) return type.name;
  }
  return nullptr;
}

}  // namespace ssrl
