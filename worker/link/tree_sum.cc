#include "worker/link/tree_sum.h"

#include <algorithm>

#include "common/check.h"

namespace bellwether {
namespace {

// Small enough that operands and partial sums stay in the nearest cache.
constexpr int64_t kBlockFloats = 1024;

}  // namespace

TreeSum::TreeSum(const std::vector<SliceRange>& roots, int slices_total, AddFunction add)
    : roots_(static_cast<int>(roots.size())), add_(add) {
  BW_CHECK_GE(roots_, 1);
  std::vector<bool> busy;  // by scratch block
  auto add_pair = [&](int left, int right) {
    int result = left;
    if (left < roots_) {  // a root is not ours to overwrite
      const auto free_block = std::find(busy.begin(), busy.end(), false) - busy.begin();
      if (free_block == static_cast<int64_t>(busy.size())) busy.push_back(false);
      busy[free_block] = true;
      result = roots_ + static_cast<int>(free_block);
    }
    if (right >= roots_) busy[right - roots_] = false;
    additions_.push_back({left, right, result});
    return result;
  };
  int next = 0;
  SumInTreeOrder<int>(
      {0, slices_total}, roots, next, [](int root) { return root; }, add_pair);
  BW_CHECK_EQ(next, roots_);
  scratch_blocks_ = static_cast<int>(busy.size());
  if (!additions_.empty()) additions_.back().result = roots_ + scratch_blocks_;
  scratch_.resize(scratch_blocks_ * kBlockFloats);
  operands_.resize(roots_ + scratch_blocks_);
}

void TreeSum::Sum(absl::Span<const float* const> roots, int64_t count, float* out) {
  BW_CHECK_EQ(static_cast<int>(roots.size()), roots_);
  if (additions_.empty()) {
    std::copy_n(roots[0], count, out);
    return;
  }
  for (int b = 0; b < scratch_blocks_; ++b) operands_[roots_ + b] = scratch_.data() + b * kBlockFloats;
  for (int64_t begin = 0; begin < count; begin += kBlockFloats) {
    const int64_t length = std::min(kBlockFloats, count - begin);
    for (int r = 0; r < roots_; ++r) operands_[r] = roots[r] + begin;
    for (const Addition& addition : additions_) {
      const int block = addition.result - roots_;
      float* result = block == scratch_blocks_ ? out + begin : scratch_.data() + block * kBlockFloats;
      add_(operands_[addition.left], operands_[addition.right], length, result);
    }
  }
}

}  // namespace bellwether
