// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without holes.
#pragma once

#include <memory>
#include <string>

#include "formats/tensor_file.h"

namespace ssrl {

// Fails with kModelFormat, naming the tensor, where the header does not describe the file exactly. The header
// may be at most 100 MB long (the format's own limit).
Result<std::unique_ptr<TensorFile>> open_safetensors(std::unique_ptr<ReadFile> file);
Result<std::unique_ptr<TensorFile>> open_safetensors(const std::string& path);

}  // namespace ssrl
