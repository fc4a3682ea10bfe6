// What the library beside the addon offers.
#include "ops/cuda/cuda_ops.h"

extern "C" {

// A fingerprint of the headers that both sides are compiled with.
__attribute__((visibility("default"))) const char* ssrl_cuda_seam() {
  return SSRL_SEAM;
}

__attribute__((visibility("default"))) void ssrl_cuda_inventory(ssrl::cuda::Inventory* out) {
  *out = ssrl::cuda::take_inventory();
}

__attribute__((visibility("default"))) void ssrl_cuda_open(int index, ssrl::Result<ssrl::ops::Ops*>* out) {
  *out = ssrl::cuda::open_device(index);
}

}  // extern "C"
