// The fused head: projection, log-softmax, loss and gradients, chunk by chunk over the rows that count.
#pragma once

#include <cstddef>

#include "ops/cuda/context.h"
#include "ops/ops.h"

namespace ssrl::cuda {

size_t log_probs_bytes(const ops::PackedWeight& weight);
Status log_probs(ops::Ops& ops, Context& context, const ops::LogProbs& a);

size_t policy_loss_bytes(const ops::PackedWeight& weight);
Status policy_loss(ops::Ops& ops, Context& context, const ops::PolicyLoss& a,
                   ops::PolicyLossStatistics* statistics);

}  // namespace ssrl::cuda
