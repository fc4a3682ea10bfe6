// A program that runs every family of kernels on the emulated device and holds it against plain loops in
// double precision: small, so that it can be built with sanitizers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/buffer.h"
#include "ops/ops.h"

namespace ssrl::cuda::sanitized {

using Doubles = std::vector<double>;

// Numbers that look random, about -1 to 1, as the type holds them.
std::vector<float> some_values(uint32_t seed, int64_t count, DType type = DType::kF32);

// Ends the program with a report where the status is an error.
void must(const Status& status);

// Ends the program where a value is further than absolute + relative * |expected| from what was expected.
struct Bound {
  double absolute, relative;
};
void compare(const std::string& what, const std::vector<float>& actual, const Doubles& expected, Bound bound);
inline Bound bound_of(DType type) {
  return type == DType::kF32 ? Bound{2e-5, 2e-5} : Bound{2e-3, 1.0 / 128};
}

// An array on the device.
class Array {
 public:
  Array(ops::Ops& ops, const std::vector<float>& values, DType type = DType::kF32);
  Array(ops::Ops& ops, int64_t count, DType type = DType::kF32);  // of zeros
  std::vector<float> values() const;
  void* data() const { return buffer_.data(); }
  float* floats() const { return buffer_.floats(); }
  char* at(int64_t i) const { return static_cast<char*>(buffer_.data()) + i * size_of(type_); }

 private:
  ops::Ops& ops_;
  int64_t count_;
  DType type_;
  Buffer buffer_;
};

inline std::string name_of(const char* kernel, DType type) {
  return std::string(kernel) + (type == DType::kF32 ? " f32" : " bf16");
}

void check_products(ops::Ops& ops, DType type);
void check_rows(ops::Ops& ops, DType type);
void check_optimizer(ops::Ops& ops);
void check_attention(ops::Ops& ops, DType type);
void check_head(ops::Ops& ops, DType type);
void check_sampling(ops::Ops& ops);

// Runs a kernel with the named mistake, which a sanitizer must report; false when there is none of this name.
bool commit_mistake(const std::string& name);

}  // namespace ssrl::cuda::sanitized
