#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/slice_tree.h"

namespace bellwether {

// The additions of the fixed tree over subtree roots that lie in separate buffers, worked out
// once. Not for several threads at a time: it owns scratch memory.
class TreeSum {
 public:
  using AddFunction = void (*)(const float* a, const float* b, int64_t count, float* out);

  // `roots` cover [0, slices_total) from left to right, each a node of the tree.
  TreeSum(const std::vector<SliceRange>& roots, int slices_total, AddFunction add);

  int roots() const { return roots_; }

  // out[0, count) = the sum of the roots in tree order; roots[i] points to `count` floats. No overlap with
  // out.
  void Sum(absl::Span<const float* const> roots, int64_t count, float* out);

 private:
  // Operands and results: below roots_ a root, else a block of scratch, the last one being `out`.
  struct Addition {
    int left = 0, right = 0, result = 0;
  };
  int roots_;
  int scratch_blocks_ = 0;
  AddFunction add_;
  std::vector<Addition> additions_;
  std::vector<float> scratch_;          // [scratch_blocks_][kBlockFloats]
  std::vector<const float*> operands_;  // of the block at hand
};

}  // namespace bellwether
