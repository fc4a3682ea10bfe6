// The final states of given sequences, in passes of packed rows: for what is read off them without a backward
// pass.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/score.h"
#include "engine/transformer.h"

namespace ssrl {

struct ForwardPass {
  const void* hidden;  // [rows, width] in the model's compute type
  int64_t rows;
  const std::vector<int32_t>& targets;  // [rows] the token that each row predicts
  const std::vector<int64_t>& wanted;   // the row of each position with a target, sequence after sequence
};

// Hands pass after pass to `read`. A row may be wanted several times: neighbours that begin alike share it.
Status for_each_pass(Model& model, Workspace& workspace, const Sequences& sequences, const AbortFlag* abort,
                     const std::function<Status(const ForwardPass&)>& read);

}  // namespace ssrl
