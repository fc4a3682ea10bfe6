#include "ops/cpu/onednn.h"

#include <omp.h>

#include <map>
#include <string>
#include <tuple>
#include <unordered_map>

#include "oneapi/dnnl/dnnl.hpp"
#include "ops/cpu/kernels.h"

namespace ssrl::ops::host::onednn {
namespace {

using dnnl::memory;

memory::data_type data_type(DType type) {
  return type == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// oneDNN plans for as many threads as OpenMP would give it, and some of its kernels ask again when they run.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

const dnnl::engine& engine() {
  static const dnnl::engine* const instance = [] {
    // Caching is ours: by shape, without a lock on the hot path.
    dnnl::set_primitive_cache_capacity(0);
    return new dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return *instance;
}

dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

struct Key {
  int64_t m, n, k, a_row, a_column, c_row, plain_b_row;
  DType type, c_type;
  bool accumulate, bias, any;

  auto tie() const {
    return std::tie(m, n, k, a_row, a_column, c_row, plain_b_row, type, c_type, accumulate, bias, any);
  }
  bool operator<(const Key& other) const { return tie() < other.tie(); }
};

struct Plan {
  dnnl::matmul primitive;
  memory::desc a, b, bias, c, scratchpad;
};

// A plan with one thread's memory objects, which cost as much to make as a small product.
struct BoundPlan {
  explicit BoundPlan(const Plan& plan)
      : plan(plan),
        a(plan.a, engine(), nullptr),
        b(plan.b, engine(), nullptr),
        c(plan.c, engine(), nullptr),
        arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}} {
    if (plan.bias.get_size() > 0) {
      bias = memory(plan.bias, engine(), nullptr);
      arguments.emplace(DNNL_ARG_BIAS, bias);
    }
    if (plan.scratchpad.get_size() > 0) {
      scratchpad = memory(plan.scratchpad, engine(), nullptr);
      arguments.emplace(DNNL_ARG_SCRATCHPAD, scratchpad);
    }
  }

  const Plan& plan;
  memory a, b, c, bias, scratchpad;
  std::unordered_map<int, memory> arguments;
};

dnnl::matmul::primitive_desc describe(const memory::desc& a, const memory::desc& b, const memory::desc& bias,
                                      const memory::desc& c, const dnnl::primitive_attr& attributes,
                                      bool has_bias) {
#ifdef SSRL_DNNL_V3
  if (has_bias) return dnnl::matmul::primitive_desc(engine(), a, b, bias, c, attributes);
  return dnnl::matmul::primitive_desc(engine(), a, b, c, attributes);
#else
  if (has_bias) return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, bias, c), attributes, engine());
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, engine());
#endif
}

memory::desc packed_layout(int64_t k, int64_t n, DType type);

Plan make_plan(const Key& key) {
  OneThread one;
  const memory::desc a({key.m, key.k}, data_type(key.type), memory::dims{key.a_row, key.a_column});
  const memory::desc c({key.m, key.n}, data_type(key.c_type), memory::dims{key.c_row, 1});
  const memory::desc bias =
      key.bias ? memory::desc({1, key.n}, memory::data_type::f32, memory::dims{key.n, 1}) : memory::desc();
  const memory::desc b = key.any ? memory::desc({key.k, key.n}, data_type(key.type), memory::format_tag::any)
                         : key.plain_b_row != 0 ? memory::desc({key.k, key.n}, data_type(key.type),
                                                               memory::dims{key.plain_b_row, 1})
                                                : packed_layout(key.k, key.n, key.type);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops post;
    post.append_sum(1.0f);
    attributes.set_post_ops(post);
  }
  const auto description = describe(a, b, bias, c, attributes, key.bias);
  return {dnnl::matmul(description), a, description.weights_desc(), bias, c, description.scratchpad_desc()};
}

// Plans live as long as the process: there are a few per shape of the model.
const Plan& plan_of(const Key& key) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const plans = new std::map<Key, Plan>;
  {
    std::lock_guard<std::mutex> lock(*mutex);
    const auto found = plans->find(key);
    if (found != plans->end()) return found->second;
  }
  Plan made = make_plan(key);
  std::lock_guard<std::mutex> lock(*mutex);
  return plans->emplace(key, std::move(made)).first->second;
}

BoundPlan& bound_plan_of(const Key& key) {
  thread_local std::map<Key, BoundPlan> own;
  const auto found = own.find(key);
  if (found != own.end()) return found->second;
  return own.emplace(key, plan_of(key)).first->second;
}

memory::desc packed_layout(int64_t k, int64_t n, DType type) {
  return plan_of({kRowTile, n, k, k, 1, n, 0, type, DType::kF32, false, false, true}).b;
}

template <typename Body>
Status guarded(const Body& body) {
  try {
    body();
    return {};
  } catch (const dnnl::error& error) {
    return {Code::kInternal, std::string("oneDNN refused a matrix product: ") + error.what()};
  } catch (const std::bad_alloc&) {
    return {Code::kOutOfMemory, "No memory left for a matrix product"};
  }
}

memory::desc plain_layout(const Layout& layout) {
  return memory::desc({layout.k, layout.n}, data_type(layout.plain_type),
                      memory::dims{layout.row_stride, layout.column_stride});
}

void reorder(const memory::desc& from_desc, const void* from, const memory::desc& to_desc, void* to) {
  OneThread one;
  memory source(from_desc, engine(), const_cast<void*>(from));
  memory target(to_desc, engine(), to);
  dnnl::reorder(source, target).execute(stream(), source, target);
  stream().wait();
}

}  // namespace

Status matmul(const Call& call) {
  return guarded([&] {
    const Key key{call.m,           call.n,    call.k,      call.a_row,      call.a_column,        call.c_row,
                  call.plain_b_row, call.type, call.c_type, call.accumulate, call.bias != nullptr, false};
    BoundPlan& bound = bound_plan_of(key);
    OneThread one;
    bound.a.set_data_handle(const_cast<void*>(call.a));
    bound.b.set_data_handle(const_cast<void*>(call.b));
    bound.c.set_data_handle(call.c);
    if (call.bias != nullptr) bound.bias.set_data_handle(const_cast<float*>(call.bias));
    if (const size_t bytes = bound.plan.scratchpad.get_size(); bytes > 0) {
      void* scratch = thread_scratch(Scratch::kMatmul, bytes);
      if (scratch == nullptr) throw std::bad_alloc();
      bound.scratchpad.set_data_handle(scratch);
    }
    bound.plan.primitive.execute(stream(), bound.arguments);
  });
}

Status packed_bytes(int64_t k, int64_t n, DType type, size_t* bytes) {
  return guarded([&] { *bytes = packed_layout(k, n, type).get_size(); });
}

Status pack(const Layout& layout, const void* plain, void* packed) {
  return guarded([&] {
    reorder(plain_layout(layout), plain, packed_layout(layout.k, layout.n, layout.packed_type), packed);
  });
}

Status unpack(const Layout& layout, const void* packed, void* plain) {
  return guarded([&] {
    reorder(packed_layout(layout.k, layout.n, layout.packed_type), packed, plain_layout(layout), plain);
  });
}

bool has_avx512() {
#if defined(__x86_64__)
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
#else
  return false;
#endif
}

bool has_bf16() {
  static const bool answer = has_avx512() && guarded([] { packed_layout(64, 64, DType::kBF16); }).ok();
  return answer;
}

}  // namespace ssrl::ops::host::onednn
