#include <hwy/targets.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string>

#include "oneapi/dnnl/dnnl.h"
#include "ops/cpu/matmul.h"
#include "ops/ops.h"

namespace ssrl::ops {
namespace {

bool amx_asked_for = false;

// A lower bit of Highway is a better target: all that are better than `best`.
constexpr int64_t better_than(int64_t best) {
  return best - 1;
}

Status limit(const std::string& name) {
#if defined(__x86_64__)
  if (name == "amx") {
    amx_asked_for = true;
    return {};
  }
  const bool avx2 = name == "avx2";
  if (avx2 || name == "avx512") {
    if (avx2) hwy::DisableTargets(better_than(HWY_AVX2));
    const auto isa = avx2 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_avx512_core_bf16;
    if (dnnl_set_max_cpu_isa(isa) == dnnl_success) return {};
    return {Code::kInternal,
            "oneDNN does not take the limit of SSRL_CPU: it was built without that feature, or "
            "something else in this process has used it before"};
  }
#endif
  return {Code::kInvalidArg, "Expected SSRL_CPU to be avx2, avx512 or amx (on x86-64 only) but received '" +
                                 name + "'; without it the best that the CPU has is used"};
}

}  // namespace

bool host::is_amx_asked_for() {
  return amx_asked_for;
}

Status apply_cpu_limit() {
  static std::once_flag once;
  static Status status;
  std::call_once(once, [] {
    const char* name = std::getenv("SSRL_CPU");
    if (name != nullptr && *name != '\0') status = limit(name);
  });
  return status;
}

}  // namespace ssrl::ops
