// Writers of safetensors and GGUF files. Tensors are asked for one by one, so that a model is never held
// twice.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "formats/tensor_file.h"
#include "status.h"

namespace ssrl {

struct TensorToWrite {
  std::string name;
  std::vector<int64_t> shape;  // row-major, outermost first
  std::string dtype;  // F32, F16 and BF16, in GGUF files also Q8_0; with `raw` any DataType of the format
  bool raw = false;   // the source gives the bytes as `dtype`, and not f32 values to convert
};

// Returns tensor `index`: its values as f32, or its bytes when it is `raw`. What is not in memory as it
// should be written is put into `scratch` first, which lives until the next call.
using TensorSource = std::function<Result<const void*>(size_t index, std::vector<float>& scratch)>;

// Both write, fsync and close `path`; an existing file is overwritten, a failure leaves a partial one.
// Errors: kIo
// ("no space left on the device"); kInvalidArg for names that come twice, a type that cannot be written, a
// shape that the type cannot have, and finite values that F16 cannot hold.

// Larger element types come first, so that every tensor is aligned to its elements.
Status write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                         const std::vector<std::pair<std::string, std::string>>& metadata,
                         const TensorSource& source);

// Version 3 with an alignment of 32 (a general.alignment in `metadata` is an error).
Status write_gguf(const std::string& path, const std::vector<TensorToWrite>& tensors,
                  const Metadata& metadata, const TensorSource& source);

}  // namespace ssrl
