// Random weights: every value is a function of (seed, parameter, position), whatever the number of threads.
#include <cmath>
#include <numbers>

#include "engine/model_load.h"

namespace ssrl {
namespace {

// Philox4x32-10 (Salmon et al. 2011): four 32-bit words from a counter and a key.
void philox(uint32_t key0, uint32_t key1, uint32_t counter[4]) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter[0];
    const uint64_t b = uint64_t(0xCD9E8D57u) * counter[2];
    const uint32_t x1 = counter[1], x3 = counter[3];
    counter[0] = uint32_t(b >> 32) ^ x1 ^ key0;
    counter[1] = uint32_t(b);
    counter[2] = uint32_t(a >> 32) ^ x3 ^ key1;
    counter[3] = uint32_t(a);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// Two independent standard normals from two words (Box and Muller 1958).
void normal_pair(uint32_t a, uint32_t b, float* out) {
  const double u = (double(a) + 1) / 4294967296.0;  // (0, 1]
  const double radius = std::sqrt(-2 * std::log(u));
  const double angle = 2 * std::numbers::pi * (double(b) / 4294967296.0);
  out[0] = float(radius * std::cos(angle));
  out[1] = float(radius * std::sin(angle));
}

void draw_normals(uint64_t seed, uint32_t parameter, float scale, float* values, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t block = 0; block < (count + 3) / 4; ++block) {
    uint32_t words[4] = {uint32_t(block), uint32_t(block >> 32), parameter, 0};
    philox(uint32_t(seed), uint32_t(seed >> 32), words);
    float normals[4];
    normal_pair(words[0], words[1], normals);
    normal_pair(words[2], words[3], normals + 2);
    for (int64_t i = 4 * block; i < count && i < 4 * block + 4; ++i)
      values[i] = scale * normals[i - 4 * block];
  }
}

}  // namespace

Status initialize_weights(Model& model, uint64_t seed, float standard_deviation, int threads) {
  const Layout& layout = model.layout();
  std::vector<float> values;
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const Parameter& parameter = layout.parameters[i];
    const bool matrix = parameter.shape.size() > 1;
    const bool bias = parameter.name.ends_with(".bias");
    values.assign(size_t(parameter.count), bias ? 0.0f : 1.0f);
    if (matrix) draw_normals(seed, uint32_t(i), standard_deviation, values.data(), parameter.count, threads);
    SSRL_RETURN_IF_ERROR(model.ops().copy_from_host(model.master(parameter.tensor) + parameter.offset,
                                                    values.data(), values.size() * sizeof(float)));
  }
  return model.repack();
}

}  // namespace ssrl
