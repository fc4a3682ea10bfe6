// The GGUF format, versions 2 and 3, little-endian: metadata, tensor list, then the tensors at aligned
// offsets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "formats/tensor_file.h"

namespace ssrl {

// Shapes come out row-major (the file lists the innermost size first). Fails with kModelFormat on big-endian
// files, other versions, quantisations that are not read (named with their tensor) and nested metadata
// arrays.
Result<std::unique_ptr<TensorFile>> open_gguf(std::unique_ptr<ReadFile> file);
Result<std::unique_ptr<TensorFile>> open_gguf(const std::string& path);

// GGUF files of Llama models keep the q and k rows in the order of interleaved rope: row 2i + p of a head is
// row p·d/2 + i of the Hugging Face layout. `data` is [rows, columns], a bias has columns = 1; rows is a
// multiple of 2·heads. For k, `heads` counts key heads.
void unpermute_rows(float* data, int64_t rows, int64_t columns, int heads);  // GGUF -> Hugging Face
void permute_rows(float* data, int64_t rows, int64_t columns, int heads);    // Hugging Face -> GGUF

}  // namespace ssrl
