// The rotary angles, rounded where transformers rounds them: an f32 inverse frequency times an f32 position.
#include <algorithm>
#include <cmath>

#include "engine/model.h"

namespace ssrl {
namespace {

// Llama 3.1 model card: low frequencies are slowed down by `factor`, high ones are kept, those between are
// blended.
float scale_frequency(const ModelConfig& c, float frequency) {
  const float pi2 = float(2 * M_PI);
  const float wavelength = pi2 / frequency;
  const float original = float(c.rope_original_positions);
  const float low_wavelength = original / float(c.rope_low_frequency);
  const float high_wavelength = original / float(c.rope_high_frequency);
  if (wavelength > low_wavelength) return frequency / float(c.rope_factor);
  if (wavelength < high_wavelength) return frequency;
  const float smooth = (original / wavelength - float(c.rope_low_frequency)) /
                       float(c.rope_high_frequency - c.rope_low_frequency);
  return (1 - smooth) * frequency / float(c.rope_factor) + smooth * frequency;
}

std::vector<float> inverse_frequencies(const ModelConfig& c) {
  std::vector<float> frequencies(c.head_dim / 2);
  for (int i = 0; i < c.head_dim / 2; ++i) {
    const float exponent = float(2 * i) / float(c.head_dim);
    float frequency = 1.0f / float(std::pow(c.rope_theta, double(exponent)));
    if (!c.rope_factors.empty()) {
      frequency /= c.rope_factors[i];
    } else if (c.rope_factor != 0) {
      frequency = scale_frequency(c, frequency);
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

}  // namespace

Status Model::reserve_positions(int64_t positions) {
  if (positions <= rope_->positions) return {};
  const ModelConfig& c = config();
  if (positions > c.max_positions) {
    return invalid_arg("Expected at most " + std::to_string(c.max_positions) +
                       " tokens, the model's context, but received " + std::to_string(positions));
  }
  // Doubling keeps the cost of a sequence that grows token by token linear.
  const int64_t grown =
      std::min<int64_t>(c.max_positions, std::max<int64_t>({positions, 2 * rope_->positions, 1024}));
  const std::vector<float> frequencies = inverse_frequencies(c);
  const int64_t half = c.head_dim / 2;
  std::vector<float> cosines(grown * half), sines(grown * half);
  for (int64_t position = 0; position < grown; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = float(position) * frequencies[i];
      cosines[position * half + i] = std::cos(angle);
      sines[position * half + i] = std::sin(angle);
    }
  }
  const size_t bytes = cosines.size() * sizeof(float);
  Buffer cosine_buffer, sine_buffer;
  SSRL_RETURN_IF_ERROR(cosine_buffer.allocate(*ops_, bytes));
  SSRL_RETURN_IF_ERROR(sine_buffer.allocate(*ops_, bytes));
  SSRL_RETURN_IF_ERROR(ops_->copy_from_host(cosine_buffer.data(), cosines.data(), bytes));
  SSRL_RETURN_IF_ERROR(ops_->copy_from_host(sine_buffer.data(), sines.data(), bytes));
  rope_->cosines = std::move(cosine_buffer);
  rope_->sines = std::move(sine_buffer);
  rope_->positions = grown;
  return {};
}

}  // namespace ssrl
