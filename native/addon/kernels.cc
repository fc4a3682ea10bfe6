// `kernels.*`, row-wise families, matrix products and the optimizer: one function per kernel, each on typed
// arrays. Shapes and meanings are documented where users meet them, in lib/kernels.ts.
#include "addon/kernel_call.h"

#include <cmath>

namespace ssrl {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;

Napi::Value matmul(KernelCall& call) {
  const Array x = call.elements("x"), weight = call.floats("weight"), bias = call.floats_or_none("bias");
  const int64_t inputs = call.integer("inputs", 1, kMaxSize);
  const int64_t rows = call.rows_of("x", x, inputs), outputs = call.rows_of("weight", weight, inputs);
  call.require(outputs > 0, "weight to have at least one row");
  if (bias) call.require_count("bias", bias, outputs, "[outputs]");
  const DType y_type = call.dtype("outputType");
  call.require(y_type == DType::kF32 || x.type == DType::kBF16, "outputType 'f32' when x is f32");
  const Array residual = call.floats_or_none("residual");
  if (residual) {
    call.require_count("residual", residual, rows * outputs, "[rows, outputs]");
    call.require(y_type == DType::kF32, "outputType 'f32' when there is a residual");
  }
  const Array y = call.output("y", rows * outputs, y_type);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops, &call]() -> Status {
    ops::PackedWeight* packed = nullptr;
    SSRL_RETURN_IF_ERROR(call.packed(weight, outputs, inputs, x.type, &packed));
    if (residual) SSRL_RETURN_IF_ERROR(ops.copy(y.data, residual.data, y.count * sizeof(float)));
    return ops.linear(*packed, x.data, rows, bias.floats(), y.data, y_type, bool(residual));
  });
}

Napi::Value matmul_backward(KernelCall& call) {
  const Array dy = call.elements("dy"), x = call.elements("x"), weight = call.floats("weight");
  const int64_t inputs = call.integer("inputs", 1, kMaxSize);
  const int64_t rows = call.rows_of("x", x, inputs), outputs = call.rows_of("weight", weight, inputs);
  call.require(outputs > 0, "weight to have at least one row");
  call.require_type("dy", dy, x.type);
  call.require_count("dy", dy, rows * outputs, "[rows, outputs]");
  const Array dx = call.output("dx", rows * inputs), dweight = call.output("dweight", outputs * inputs);
  const Array dbias = call.output("dbias", outputs);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops, &call]() -> Status {
    ops::PackedWeight* packed = nullptr;
    SSRL_RETURN_IF_ERROR(call.packed(weight, outputs, inputs, x.type, &packed));
    SSRL_RETURN_IF_ERROR(ops.linear_backward_input(*packed, dy.data, rows, dx.data, DType::kF32));
    return ops.linear_backward_weight(dy.data, x.data, x.type, rows, outputs, inputs, dweight.floats(),
                                      dbias.floats());
  });
}

Napi::Value rms_norm(KernelCall& call) {
  const Array x = call.elements("x"), weight = call.floats("weight");
  const int64_t width = weight.count, groups = call.integer("groups", 1, 1 << 20);
  call.require(width > 0 && width < kMaxSize, "weight to have at least one value");
  const int64_t tokens = call.rows_of("x", x, groups * width);
  const float epsilon = static_cast<float>(call.number("epsilon", 0, 1));
  const Array y = call.output("y", x.count, call.dtype("outputType"));
  const Array inverse = call.output("inverseRms", tokens * groups);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.rms_norm({x.data, x.type, groups * width, y.data, y.type, groups * width, weight.floats(),
                         inverse.floats(), tokens, static_cast<int>(groups), static_cast<int>(width),
                         epsilon});
  });
}

Napi::Value rms_norm_backward(KernelCall& call) {
  const Array dy = call.elements("dy"), x = call.elements("x"), weight = call.floats("weight");
  const Array inverse = call.floats("inverseRms");
  const int64_t width = weight.count, groups = call.integer("groups", 1, 1 << 20);
  call.require(width > 0 && width < kMaxSize, "weight to have at least one value");
  const int64_t tokens = call.rows_of("x", x, groups * width);
  call.require_count("dy", dy, x.count, "[tokens, groups, width]");
  call.require_count("inverseRms", inverse, tokens * groups, "[tokens, groups]");
  const Array dx = call.output("dx", x.count, call.dtype("outputType")),
              dweight = call.output("dweight", width);
  ops::Ops& ops = call.ops();
  float* scratch =
      static_cast<float*>(call.scratch(static_cast<size_t>(ops.max_threads() * width) * sizeof(float)));
  const int64_t stride = groups * width;
  return call.run([=, &ops] {
    return ops.rms_norm_backward({dy.data, dy.type, stride, x.data, x.type, stride, weight.floats(),
                                  inverse.floats(), dx.data, dx.type, stride, false, dweight.floats(),
                                  scratch, tokens, static_cast<int>(groups), static_cast<int>(width)});
  });
}

Napi::Value rotate(KernelCall& call, bool backward) {
  const Array x = call.elements("x"), positions = call.ints("positions");
  const Array cosines = call.floats("cosines"), sines = call.floats("sines");
  const int64_t heads = call.integer("heads", 1, 1 << 20), head_dim = call.integer("headDim", 2, 1 << 16);
  call.require(head_dim % 2 == 0, "an even headDim but received " + std::to_string(head_dim));
  const int64_t tokens = call.rows_of("x", x, heads * head_dim);
  const int64_t table = call.rows_of("cosines", cosines, head_dim / 2);
  call.require_count("sines", sines, cosines.count, "[positions, headDim / 2]");
  call.require_count("positions", positions, tokens, "[tokens]");
  call.require_below("positions", positions, table);
  call.deliver(backward ? "dx" : "y", x);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.rope({x.data, x.type, heads * head_dim, positions.ints(), cosines.floats(), sines.floats(),
                     tokens, static_cast<int>(heads), static_cast<int>(head_dim), backward});
  });
}

Napi::Value rope(KernelCall& call) {
  return rotate(call, false);
}
Napi::Value rope_backward(KernelCall& call) {
  return rotate(call, true);
}

Napi::Value swiglu(KernelCall& call) {
  const Array gate_up = call.elements("gateUp");
  const int64_t width = call.integer("width", 1, kMaxSize),
                tokens = call.rows_of("gateUp", gate_up, 2 * width);
  const Array y = call.output("y", tokens * width, gate_up.type);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] { return ops.swiglu({gate_up.data, y.data, y.type, tokens, width}); });
}

Napi::Value swiglu_backward(KernelCall& call) {
  const Array gate_up = call.elements("gateUp"), dy = call.elements("dy");
  const int64_t width = call.integer("width", 1, kMaxSize),
                tokens = call.rows_of("gateUp", gate_up, 2 * width);
  call.require_type("dy", dy, gate_up.type);
  call.require_count("dy", dy, tokens * width, "[tokens, width]");
  const Array out = call.output("dgateUp", gate_up.count, gate_up.type),
              y = call.output("y", dy.count, gate_up.type);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.swiglu_backward({gate_up.data, dy.data, out.data, y.data, out.type, tokens, width});
  });
}

Napi::Value embedding(KernelCall& call) {
  const Array ids = call.ints("ids"), table = call.floats("table");
  const int64_t width = call.integer("width", 1, kMaxSize), vocabulary = call.rows_of("table", table, width);
  const DType type = call.dtype("dtype");
  call.require_below("ids", ids, vocabulary);
  const Array x = call.output("x", ids.count * width);
  ops::Ops& ops = call.ops();
  return call.run(
      [=, &ops] { return ops.embedding(ids.ints(), ids.count, table.floats(), width, type, x.floats()); });
}

Napi::Value embedding_backward(KernelCall& call) {
  const Array ids = call.ints("ids"), dx = call.floats("dx");
  const int64_t vocabulary = call.integer("vocabulary", 1, kMaxSize);
  const int64_t width = call.integer("width", 1, kMaxSize);
  call.require_count("dx", dx, ids.count * width, "[tokens, width]");
  call.require_below("ids", ids, vocabulary);
  call.require(vocabulary <= (int64_t{1} << 40) / width, "vocabulary times width to be below 2^40");
  const Array dtable = call.output("dtable", vocabulary * width);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.embedding_backward(ids.ints(), ids.count, dx.floats(), width, dtable.floats());
  });
}

Napi::Value adamw(KernelCall& call) {
  const Array weight = call.floats("weight"), gradient = call.floats("gradient");
  const Array first = call.floats("firstMoment"), second = call.floats("secondMoment");
  call.require_count("gradient", gradient, weight.count, "(as many as weight)");
  call.require_count("firstMoment", first, weight.count, "(as many as weight)");
  call.require_count("secondMoment", second, weight.count, "(as many as weight)");
  ops::AdamW step{};
  step.weight = weight.floats();
  step.gradient = gradient.floats();
  step.first_moment = first.floats();
  step.second_moment = second.floats();
  step.count = weight.count;
  step.learning_rate = call.number("learningRate", 0, 1e6);
  step.beta1 = call.number("beta1", 0, 0.9999999);
  step.beta2 = call.number("beta2", 0, 0.9999999);
  step.epsilon = call.number("epsilon", 0, 1e6);
  step.weight_decay = call.number("weightDecay", 0, 1e6);
  step.step = call.integer("step", 1, int64_t{1} << 53);
  step.gradient_scale = static_cast<float>(call.number("gradientScale", 0, 3e38));
  call.deliver("weight", weight);
  call.deliver("firstMoment", first);
  call.deliver("secondMoment", second);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] { return ops.adamw(step); });
}

Napi::Value global_norm(KernelCall& call) {
  const std::vector<Array> gradients = call.float_list("gradients");
  const Array norm = call.double_output("norm", 1);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops]() -> Status {
    double sum = 0;
    for (const Array& gradient : gradients) {
      double part = 0;
      SSRL_RETURN_IF_ERROR(ops.sum_of_squares(gradient.floats(), gradient.count, &part));
      sum += part;
    }
    *static_cast<double*>(norm.data) = std::sqrt(sum);
    return {};
  });
}

}  // namespace

void init_kernels(Napi::Env env, Napi::Object exports) {
  Napi::Object kernels = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*body)(KernelCall&)) {
    kernels.Set(name, kernel_function(env, name, body));
  };
  add("matmul", matmul);
  add("matmulBackward", matmul_backward);
  add("rmsNorm", rms_norm);
  add("rmsNormBackward", rms_norm_backward);
  add("rope", rope);
  add("ropeBackward", rope_backward);
  add("swiglu", swiglu);
  add("swigluBackward", swiglu_backward);
  add("embedding", embedding);
  add("embeddingBackward", embedding_backward);
  add("adamw", adamw);
  add("globalNorm", global_norm);
  init_attention_kernels(env, kernels);
  init_head_kernels(env, kernels);
  exports.Set("kernels", kernels);
}

}  // namespace ssrl
