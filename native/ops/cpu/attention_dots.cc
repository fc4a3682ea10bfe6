#include "ops/cpu/attention_dots.h"

#if defined(__x86_64__)
#include "oneapi/dnnl/dnnl.h"
#endif

namespace ssrl::ops::host {
namespace {

const DotRoutines* find_dot_routines() {
#if defined(__x86_64__)
  // oneDNN's view of the CPU, since SSRL_CPU limits it.
  const int isa = dnnl_get_effective_cpu_isa();
  if ((isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16)
    return &avx512bf16_dot_routines();
#endif
  return nullptr;
}

}  // namespace

const DotRoutines* dot_routines() {
  static const DotRoutines* const routines = find_dot_routines();
  return routines;
}

}  // namespace ssrl::ops::host
