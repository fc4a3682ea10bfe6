#include "engine/exactness.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

namespace ssrl {
namespace {

// All layers have the same shapes, so two of them show what all do.
constexpr int kLayers = 2;
constexpr float kTemperature = 0.7f;
// The second sequence crosses from one key block into the next while it is decoded; shorter where the context
// is.
constexpr int32_t kShort = 37, kLong = ops::kKeyBlock + 6, kDecoded = 8;

class ExactnessCheck {
 public:
  ExactnessCheck(Model& model, Workspace& workspace)
      : model_(model),
        ops_(model.ops()),
        workspace_(workspace),
        layers_(std::min(kLayers, model.config().layers)),
        short_(std::min(kShort, model.config().max_positions)),
        long_(std::min(kLong, model.config().max_positions)),
        prefilled_(std::max(1, long_ - kDecoded)) {
    row_bytes_ = size_t(model.config().hidden) * size_of(model.compute());
    uint32_t state = 12345;
    for (int32_t i = 0; i < short_ + long_; ++i) {
      state = state * 1664525u + 1013904223u;
      tokens_.push_back(int32_t((state >> 8) % uint32_t(model.config().vocabulary)));
      positions_.push_back(i < short_ ? i : i - short_);
    }
  }

  Status run(bool* exact) {
    const int64_t rows = short_ + long_;
    SSRL_RETURN_IF_ERROR(packed_.allocate(ops_, rows * row_bytes_));
    SSRL_RETURN_IF_ERROR(paged_.allocate(ops_, rows * row_bytes_));
    const int64_t starts[] = {0, short_, rows};
    SSRL_RETURN_IF_ERROR(forward_packed(model_, workspace_,
                                        {tokens_.data(), positions_.data(), rows, starts, 2}, packed_.data(),
                                        nullptr, layers_));
    SSRL_RETURN_IF_ERROR(run_paged());
    std::vector<char> packed(rows * row_bytes_), paged(rows * row_bytes_);
    SSRL_RETURN_IF_ERROR(ops_.copy_to_host(packed.data(), packed_.data(), packed.size()));
    SSRL_RETURN_IF_ERROR(ops_.copy_to_host(paged.data(), paged_.data(), paged.size()));
    *exact = packed == paged;
    return *exact ? compare_heads(rows, exact) : Status();
  }

 private:
  // Row `row` of the paged results.
  void* paged_row(int64_t row) { return static_cast<char*>(paged_.data()) + row * row_bytes_; }

  // Both prompts in one batch, then the rest of the long one token by token.
  Status run_paged() {
    const size_t page = page_bytes(model_.config(), model_.compute()) / model_.config().layers * layers_;
    SSRL_RETURN_IF_ERROR(pages_.allocate(ops_, 3 * page));
    char* const memory = static_cast<char*>(pages_.data());
    void* const short_pages[] = {memory};
    void* const long_pages[] = {memory + page, memory + 2 * page};
    const PagedSequence prompts[] = {{0, short_, 0, short_pages}, {short_, prefilled_, 0, long_pages}};
    SSRL_RETURN_IF_ERROR(forward_paged(model_, workspace_,
                                       {tokens_.data(), positions_.data(), short_ + prefilled_, prompts, 2},
                                       paged_.data(), layers_));
    for (int32_t position = prefilled_; position < long_; ++position) {
      const int32_t row = short_ + position;
      const PagedSequence decoded = {0, 1, position, long_pages};
      SSRL_RETURN_IF_ERROR(forward_paged(
          model_, workspace_, {&tokens_[row], &positions_[row], 1, &decoded, 1}, paged_row(row), layers_));
    }
    return {};
  }

  // The log-prob of the head over all rows at once against that of a sampler that draws one token.
  Status compare_heads(int64_t rows, bool* exact) {
    const int64_t vocabulary = model_.config().vocabulary;
    Buffer scratch, logits, results;
    const size_t scratch_bytes =
        std::max(ops_.log_probs_scratch(model_.head()), ops_.sample_scratch(vocabulary));
    SSRL_RETURN_IF_ERROR(scratch.allocate(ops_, scratch_bytes));
    SSRL_RETURN_IF_ERROR(logits.allocate(ops_, vocabulary * sizeof(float)));
    const size_t result_bytes = std::max(2 * rows * sizeof(float), sizeof(ops::SampleResult));
    SSRL_RETURN_IF_ERROR(results.allocate(ops_, result_bytes));
    const int64_t drawn[] = {rows - 1, int64_t(short_) - 1, 0};
    ops::SampleResult samples[3];
    std::vector<int32_t> targets(rows, 0);
    for (int i = 0; i < 3; ++i) {
      SSRL_RETURN_IF_ERROR(
          ops_.linear(model_.head(), paged_row(drawn[i]), 1, nullptr, logits.data(), DType::kF32, false));
      const ops::SampleRow settings = {.temperature = kTemperature,
                                       .top_k = 0,
                                       .top_p = 1,
                                       .min_p = 0,
                                       .seed = 7,
                                       .sample = 0,
                                       .position = uint32_t(i)};
      SSRL_RETURN_IF_ERROR(ops_.sample({logits.floats(), 1, vocabulary, &settings,
                                        static_cast<ops::SampleResult*>(results.data()), scratch.data()}));
      SSRL_RETURN_IF_ERROR(ops_.copy_to_host(&samples[i], results.data(), sizeof samples[i]));
      targets[drawn[i]] = samples[i].token;
    }
    std::vector<float> log_probs(rows), entropies(rows);
    float* const device_entropies = results.floats() + rows;
    SSRL_RETURN_IF_ERROR(ops_.log_probs({packed_.data(), &model_.head(), targets.data(), kTemperature,
                                         results.floats(), device_entropies, scratch.data(), rows}));
    SSRL_RETURN_IF_ERROR(ops_.copy_to_host(log_probs.data(), results.data(), rows * sizeof(float)));
    SSRL_RETURN_IF_ERROR(ops_.copy_to_host(entropies.data(), device_entropies, rows * sizeof(float)));
    for (int i = 0; i < 3; ++i) {
      // A context of one token makes two of the rows the same one.
      if (targets[drawn[i]] != samples[i].token) continue;
      *exact = *exact && std::memcmp(&log_probs[drawn[i]], &samples[i].logprob, sizeof(float)) == 0 &&
               std::memcmp(&entropies[drawn[i]], &samples[i].entropy, sizeof(float)) == 0;
    }
    return {};
  }

  Model& model_;
  ops::Ops& ops_;
  Workspace& workspace_;
  int layers_;
  int32_t short_, long_, prefilled_;
  size_t row_bytes_;
  std::vector<int32_t> tokens_, positions_;
  Buffer packed_, paged_, pages_;
};

}  // namespace

Result<bool> check_exactness(Model& model, Workspace& workspace, int threads) {
  const ModelConfig& c = model.config();
  using Shape = std::pair<const ops::Ops*, std::vector<int>>;
  static std::map<Shape, bool> known;  // compute thread only
  const Shape key = {
      &model.ops(),
      {c.hidden, c.ffn, c.heads, c.kv_heads, c.head_dim, c.vocabulary, c.qk_norm, c.qkv_bias, c.mlp_bias,
       c.output_bias, int(model.compute()), threads, std::min(kLong, c.max_positions)}};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  bool exact = false;
  const Status status = ExactnessCheck(model, workspace).run(&exact);
  if (!status.ok()) return status;
  known[key] = exact;
  return exact;
}

}  // namespace ssrl
