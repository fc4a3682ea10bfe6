#include "ops/cuda/sanitized/host.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "ops/bf16.h"

namespace ssrl::cuda::sanitized {
namespace {

float as_held(float value, DType type) {
  return type == DType::kF32 ? value : ops::from_bf16(ops::to_bf16(value));
}

}  // namespace

std::vector<float> some_values(uint32_t seed, int64_t count, DType type) {
  std::vector<float> values;
  uint32_t state = seed * 2654435761u + 12345u;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    values.push_back(as_held(static_cast<float>(state >> 8) / 8388608.0f - 1.0f, type));
  }
  return values;
}

void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void compare(const std::string& what, const std::vector<float>& actual, const Doubles& expected,
             Bound bound) {
  if (actual.size() != expected.size()) must({Code::kInternal, what + " has another length"});
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::fabs(actual[i] - expected[i]);
    if (error <= bound.absolute + bound.relative * std::fabs(expected[i])) continue;
    must({Code::kInternal, what + "[" + std::to_string(i) + "] is " + std::to_string(actual[i]) + ", not " +
                               std::to_string(expected[i])});
  }
}

Array::Array(ops::Ops& ops, const std::vector<float>& values, DType type)
    : Array(ops, static_cast<int64_t>(values.size()), type) {
  std::vector<uint16_t> rounded;
  for (const float value : values) rounded.push_back(ops::to_bf16(value));
  const void* const from = type == DType::kF32 ? static_cast<const void*>(values.data()) : rounded.data();
  must(ops.copy_from_host(buffer_.data(), from, values.size() * size_of(type)));
}

Array::Array(ops::Ops& ops, int64_t count, DType type) : ops_(ops), count_(count), type_(type) {
  const size_t bytes = static_cast<size_t>(count) * size_of(type);
  must(buffer_.allocate(ops, bytes));
  must(ops.fill_zero(buffer_.data(), bytes));
}

std::vector<float> Array::values() const {
  std::vector<float> values(static_cast<size_t>(count_));
  if (type_ == DType::kF32) {
    must(ops_.copy_to_host(values.data(), buffer_.data(), values.size() * sizeof(float)));
    return values;
  }
  std::vector<uint16_t> patterns(values.size());
  must(ops_.copy_to_host(patterns.data(), buffer_.data(), patterns.size() * sizeof(uint16_t)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = ops::from_bf16(patterns[i]);
  return values;
}

}  // namespace ssrl::cuda::sanitized
