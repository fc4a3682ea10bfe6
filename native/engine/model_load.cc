#include "engine/model_load.h"

#include <algorithm>
#include <new>

#include "formats/gguf.h"
#include "formats/tensor_file.h"

namespace ssrl {
namespace {

std::string describe(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

struct Piece {
  const Parameter* parameter;
  const TensorFile* file;
  const TensorInfo* info;
  int permuted_heads;
};

// Heads and rows whose permutation can be undone: an even number of rows a head.
bool can_unpermute(const Parameter& parameter, int heads) {
  return heads >= 0 && (heads == 0 || parameter.shape[0] % (2 * int64_t(heads)) == 0);
}

Status match_sources(Model& model, const std::vector<std::unique_ptr<TensorFile>>& files,
                     const std::vector<WeightSource>& sources, std::vector<Piece>* pieces) {
  std::vector<bool> seen(model.layout().parameters.size());
  for (const WeightSource& source : sources) {
    const auto found = model.layout().by_name.find(source.parameter);
    if (found == model.layout().by_name.end()) {
      return model_format("The model has no parameter " + source.parameter);
    }
    if (seen[found->second]) return model_format("Two sources were given for " + source.parameter);
    seen[found->second] = true;
    if (source.file >= files.size()) return model_format("No such file for " + source.parameter);
    const TensorFile& file = *files[source.file];
    const TensorInfo* info = file.find(source.tensor);
    if (info == nullptr) return model_format(file.path() + " has no tensor " + source.tensor);
    const Parameter& parameter = model.layout().parameters[found->second];
    if (info->shape != parameter.shape) {
      return model_format("Expected shape " + describe(parameter.shape) + " for " + source.tensor + " but " +
                          file.path() + " has " + describe(info->shape));
    }
    if (!can_unpermute(parameter, source.permuted_heads)) {
      return model_format("The rows of " + source.tensor + " can't be divided into " +
                          std::to_string(source.permuted_heads) + " heads");
    }
    pieces->push_back({&parameter, &file, info, source.permuted_heads});
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i]) return model_format("The files have no tensor for " + model.layout().parameters[i].name);
  }
  return {};
}

Status load_piece(Model& model, const Piece& piece) {
  const Parameter& parameter = *piece.parameter;
  // An exception must not leave an OpenMP region.
  std::unique_ptr<float[]> values(new (std::nothrow) float[parameter.count]);
  if (!values) return {Code::kOutOfMemory, "No memory to read " + parameter.name};
  SSRL_RETURN_IF_ERROR(piece.file->read_f32(*piece.info, values.get()));
  if (piece.permuted_heads > 0) {
    const int64_t rows = parameter.shape[0];
    unpermute_rows(values.get(), rows, parameter.count / rows, piece.permuted_heads);
  }
  float* to = model.master(parameter.tensor) + parameter.offset;
  return model.ops().copy_from_host(to, values.get(), parameter.count * sizeof(float));
}

}  // namespace

Status load_weights(Model& model, const std::vector<std::unique_ptr<TensorFile>>& files,
                    const LoadOptions& options) {
  std::vector<Piece> pieces;
  SSRL_RETURN_IF_ERROR(match_sources(model, files, options.sources, &pieces));
  // The largest first, so that no thread is left alone with it at the end.
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.parameter->count > b.parameter->count; });
  uint64_t total = 0, loaded = 0;
  for (const Piece& piece : pieces) total += uint64_t(piece.parameter->count) * sizeof(float);
  Status failure;
#pragma omp parallel for schedule(dynamic) num_threads(options.threads)
  for (size_t i = 0; i < pieces.size(); ++i) {
    Status status;
#pragma omp critical(ssrl_load)
    {
      if (failure.ok()) failure = check_abort(options.abort);
      status = failure;
    }
    if (!status.ok()) continue;
    status = load_piece(model, pieces[i]);
#pragma omp critical(ssrl_load)
    {
      if (!status.ok() && failure.ok()) failure = status;
      loaded += uint64_t(pieces[i].parameter->count) * sizeof(float);
      if (options.on_progress) options.on_progress(loaded, total);
    }
  }
  SSRL_RETURN_IF_ERROR(failure);
  return model.repack();
}

}  // namespace ssrl
