#include "engine/forward_passes.h"

#include <algorithm>

#include "engine/packing.h"

namespace ssrl {
namespace {

// Enough for the matrix products to run at full speed and for a usual group to be one pass; more only takes
// memory.
constexpr int64_t kRowsPerPass = 2048;

// Whether the next sequence, which shares some rows with the one before and adds others, begins a new pass. A
// cut inside a group computes the shared rows once more, so that they are at most half of a pass; one between
// groups costs nothing and is taken early.
bool begins_pass(int64_t rows, int64_t shared, int64_t added) {
  if (shared == 0 && 2 * rows >= kRowsPerPass) return true;
  return rows > 0 && rows + added > std::max(kRowsPerPass, 2 * shared);
}

}  // namespace

Status for_each_pass(Model& model, Workspace& workspace, const Sequences& sequences, const AbortFlag* abort,
                     const std::function<Status(const ForwardPass&)>& read) {
  Packing packing;
  std::vector<int32_t> targets;
  std::vector<int64_t> wanted;
  const size_t row_bytes = size_t(model.config().hidden) * size_of(model.compute());
  const auto flush = [&]() -> Status {
    const int64_t rows = packing.rows();
    if (rows == 0) return {};
    SSRL_RETURN_IF_ERROR(workspace.hidden.reserve(model.ops(), size_t(rows) * row_bytes));
    SSRL_RETURN_IF_ERROR(forward_packed(model, workspace, packing.batch(), workspace.hidden.data(), abort));
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    SSRL_RETURN_IF_ERROR(read({workspace.hidden.data(), rows, targets, wanted}));
    packing.clear();
    targets.clear();
    wanted.clear();
    return {};
  };
  for (int64_t s = 0; s < sequences.count; ++s) {
    const int32_t* tokens = sequences.tokens + sequences.offsets[s];
    const int64_t rows = int64_t(sequences.offsets[s + 1]) - sequences.offsets[s] - 1;
    if (rows == 0) continue;
    const int64_t shared = packing.shared_rows(tokens, rows, rows);
    if (begins_pass(packing.rows(), shared, rows - shared)) SSRL_RETURN_IF_ERROR(flush());
    const int64_t before = packing.rows();
    packing.add(tokens, rows, rows);
    const int64_t added = packing.rows() - before;
    targets.insert(targets.end(), tokens + 1 + rows - added, tokens + 1 + rows);
    wanted.insert(wanted.end(), packing.path().begin(), packing.path().begin() + rows);
  }
  return flush();
}

}  // namespace ssrl
