// Does this machine keep the promise that a token has the same log-prob, bit for bit, however it is computed?
#pragma once

#include "engine/transformer.h"
#include "status.h"

namespace ssrl {

// Runs a few random tokens through the first layers and the head of the model three ways - packed as for
// learning, prefilled in a mixed batch, decoded one by one - and compares the bits. Takes milliseconds;
// remembered for the process by shape, compute type and threads. An error only where the check itself could
// not run.
Result<bool> check_exactness(Model& model, Workspace& workspace, int threads);

}  // namespace ssrl
