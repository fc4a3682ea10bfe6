#include "engine/packing.h"

#include <algorithm>
#include <numeric>

namespace ssrl {

int64_t Packing::shared_rows(const int32_t* tokens, int64_t rows, int64_t shareable) const {
  const int64_t most = std::min({rows, shareable, shareable_});
  if (most == 0) return 0;
  const int64_t equal = std::mismatch(tokens, tokens + most + 1, previous_).first - tokens;
  return std::max(int64_t{0}, equal - 1);
}

void Packing::add(const int32_t* tokens, int64_t rows, int64_t shareable) {
  const int64_t shared = shared_rows(tokens, rows, shareable);
  // A sequence without rows of its own leaves the longer one in place for those that follow.
  if (shared == rows) return;
  path_.resize(rows);
  std::iota(path_.begin() + shared, path_.end(), this->rows());
  for (int64_t i = shared; i < rows; ++i) positions_.push_back(int32_t(i));
  tokens_.insert(tokens_.end(), tokens + shared, tokens + rows);
  starts_.push_back(this->rows());
  previous_ = tokens;
  shareable_ = std::min(shareable, rows);
}

void Packing::clear() {
  tokens_.clear();
  positions_.clear();
  starts_.assign(1, 0);
  path_.clear();
  shareable_ = 0;
}

void KeyBlocks::add(int64_t row, int64_t count, int64_t position) {
  first.push_back(int64_t(rows.size()));
  const int64_t length = position + count;
  path_.resize(length);
  std::iota(path_.begin() + position, path_.end(), row);
  for (int64_t begin = 0; begin < length; begin += ops::kKeyBlock) {
    const int64_t end = std::min(length, begin + ops::kKeyBlock);
    // Rows rise along a path, so that a run is known by its ends.
    if (path_[end - 1] - path_[begin] == end - 1 - begin) {
      rows.push_back(path_[begin]);
    } else {
      rows.push_back(-1 - int64_t(gathered.size()));
      gathered.insert(gathered.end(), path_.begin() + begin, path_.begin() + end);
    }
  }
}

PackedKeyValues::PackedKeyValues(Model& model, Buffer& gathered, const PackedBatch& batch)
    : model_(model), gathered_(gathered), stride_(model.config().qkv_width()) {
  for (int64_t s = 0; s < batch.sequence_count; ++s) {
    const int64_t begin = batch.starts[s], end = batch.starts[s + 1];
    blocks_.add(begin, end - begin, begin < end ? batch.positions[begin] : 0);
  }
  keys_.resize(blocks_.rows.size());
  values_.resize(blocks_.rows.size());
  for (int64_t s = 0; s < batch.sequence_count; ++s) {
    const int64_t begin = batch.starts[s], end = batch.starts[s + 1];
    if (begin == end) continue;
    sequences_.push_back({.query_row = begin,
                          .query_count = int32_t(end - begin),
                          .position = batch.positions[begin],
                          .key_blocks = &keys_[blocks_.first[s]],
                          .value_blocks = &values_[blocks_.first[s]]});
  }
}

Status PackedKeyValues::reserve() {
  return gathered_.reserve(model_.ops(),
                           blocks_.gathered.size() * size_t(stride_) * size_of(model_.compute()));
}

Status PackedKeyValues::bind(int, const void* qkv) {
  const ModelConfig& c = model_.config();
  const int64_t element = int64_t(size_of(model_.compute())), count = int64_t(blocks_.gathered.size());
  if (count > 0) {
    SSRL_RETURN_IF_ERROR(reserve());
    SSRL_RETURN_IF_ERROR(model_.ops().gather_rows(qkv, model_.compute(), blocks_.gathered.data(), count,
                                                  stride_, gathered_.data()));
  }
  for (size_t i = 0; i < keys_.size(); ++i) {
    const int64_t row = blocks_.rows[i];
    const char* block = row >= 0
                            ? static_cast<const char*>(qkv) + row * stride_ * element
                            : static_cast<const char*>(gathered_.data()) + (-1 - row) * stride_ * element;
    keys_[i] = block + c.q_width() * element;
    values_[i] = block + (c.q_width() + c.kv_width()) * element;
  }
  return {};
}

}  // namespace ssrl
