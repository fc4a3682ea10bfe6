// Sequences as packed rows, where neighbours that begin alike share the rows of their beginning: the prompt
// of a group goes through the layers once.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/buffer.h"
#include "engine/transformer.h"

namespace ssrl {

class Packing {
 public:
  // Appends the rows of a sequence that the one before does not have. tokens [rows + 1], the last one only a
  // target, must stay where they are. Two sequences share a row when it is among the first `shareable` ones
  // of both, and all tokens up to its target are equal.
  void add(const int32_t* tokens, int64_t rows, int64_t shareable);
  // How many rows add() would find there.
  int64_t shared_rows(const int32_t* tokens, int64_t rows, int64_t shareable) const;
  void clear();

  int64_t rows() const { return int64_t(tokens_.size()); }
  // The row of each position of the sequence that was added last.
  const std::vector<int64_t>& path() const { return path_; }
  PackedBatch batch() const {
    return {tokens_.data(), positions_.data(), rows(), starts_.data(), int64_t(starts_.size()) - 1};
  }

 private:
  std::vector<int32_t> tokens_, positions_;
  std::vector<int64_t> starts_ = {0};
  std::vector<int64_t> path_;
  const int32_t* previous_ = nullptr;  // the sequence that path_ leads through
  int64_t shareable_ = 0;              // of its rows
};

// Where the keys of packed sequences lie, in blocks of kKeyBlock positions. A block that is not one run of
// rows has to be gathered before attention can walk it.
struct KeyBlocks {
  // Sequence s is the rows starts[s] .. starts[s + 1] at positions from `position` of its first row on; its
  // keys before are the first ones of sequence s - 1.
  void add(int64_t row, int64_t count, int64_t position);

  std::vector<int64_t> first;     // [sequences] index of the sequence's first block
  std::vector<int64_t> rows;      // [blocks] first row of the run, or -1 - (its first index in `gathered`)
  std::vector<int64_t> gathered;  // rows of the blocks to gather, one after another

 private:
  std::vector<int64_t> path_;
};

// Keys and values of packed sequences: the rows of qkv themselves, and copies where a block of them is not
// one run of rows. `gathered` holds the copies.
class PackedKeyValues final : public KeyValues {
 public:
  PackedKeyValues(Model& model, Buffer& gathered, const PackedBatch& batch);
  // Memory for the copies; bind() asks for it otherwise.
  Status reserve();
  Status bind(int layer, const void* qkv) override;
  int64_t stride() const override { return stride_; }

 private:
  Model& model_;
  Buffer& gathered_;
  int64_t stride_;
  KeyBlocks blocks_;
  std::vector<const void*> keys_, values_;
};

}  // namespace ssrl
