// Without arguments: every family in two schedules. With the name of a mistake: a kernel that has it.
#include <cstdio>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/emulation/block.h"
#include "ops/cuda/sanitized/host.h"

int main(int count, char** arguments) {
  using namespace ssrl::cuda::sanitized;
  if (count > 1) return commit_mistake(arguments[1]) ? 0 : 2;
  auto device = ssrl::cuda::open_device(0);
  must(device.status());
  ssrl::ops::Ops& ops = *device.value();
  for (const uint64_t seed : {0, 1}) {
    ssrl::cuda::emulation::set_seed(seed);
    for (const auto type : {ssrl::DType::kF32, ssrl::DType::kBF16}) {
      check_products(ops, type);
      check_rows(ops, type);
      check_attention(ops, type);
      check_head(ops, type);
    }
    check_optimizer(ops);
    check_sampling(ops);
  }
  std::puts("every family of kernels is right");
}
