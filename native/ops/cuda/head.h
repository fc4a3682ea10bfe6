// The fused head: projection, log-softmax, loss and gradients, chunk by chunk over the rows that count.
#pragma once

#include <cstddef>

#include "ops/cuda/device.h"
#include "ops/ops.h"

namespace ssrl::cuda {

size_t log_probs_bytes(const ops::PackedWeight& weight);
Status log_probs(ops::Ops& ops, const ops::LogProbs& a, Stream stream);

size_t policy_loss_bytes(const ops::PackedWeight& weight);
Status policy_loss(ops::Ops& ops, const ops::PolicyLoss& a, ops::PolicyLossStatistics* statistics,
                   Stream stream);

}  // namespace ssrl::cuda
