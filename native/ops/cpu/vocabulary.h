// How many rows of logits exist at a time.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace ssrl::ops::host {

// A multiple of kRowTile, at most 512, and about 64 MB of f32 logits.
int64_t vocabulary_chunk(const PackedWeight& weight);

}  // namespace ssrl::ops::host
