// Where a model's weights come from: tensor files, or a seed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "abort.h"
#include "engine/model.h"

namespace ssrl {

class TensorFile;

// One source of a parameter; `permuted_heads` > 0 undoes GGUF's row permutation of q and k over that many
// heads.
struct WeightSource {
  std::string parameter;
  size_t file;
  std::string tensor;
  int permuted_heads;
};

struct LoadOptions {
  std::vector<WeightSource> sources;  // each parameter of the model exactly once
  int threads = 1;
  const AbortFlag* abort = nullptr;
  // Bytes of f32 weights so far and in all; called from one thread at a time, not always the same.
  std::function<void(uint64_t, uint64_t)> on_progress;
};

// Fills and packs the model. kModelFormat where a parameter has no source, two, or one of another shape.
Status load_weights(Model& model, const std::vector<std::unique_ptr<TensorFile>>& files,
                    const LoadOptions& options);

// Matrices drawn from N(0, standard_deviation²), norms 1, biases 0; then packs. Depends on the seed and the
// shape only.
Status initialize_weights(Model& model, uint64_t seed, float standard_deviation, int threads);

}  // namespace ssrl
