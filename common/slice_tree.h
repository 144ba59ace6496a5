#pragma once

#include <cstdint>
#include <vector>

namespace bellwether {

// The fixed summation tree ("Numbers" in docs/architecture.md).
//
// A row-parallel product is cut along its inner dimension into `total` slices. Whoever computes them, the
// slices' partial sums are added as
//     sum(lo, hi) = sum(lo, mid) + sum(mid, hi),   mid = lo + (hi - lo) / 2,
// starting from sum(0, total), so the result has the same bits for every layout.

// Slices [begin, end) of a tensor.
struct SliceRange {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  friend bool operator==(const SliceRange&, const SliceRange&) = default;
};

inline int SliceTreeMiddle(SliceRange range) { return range.begin + range.size() / 2; }

// The largest nodes of the tree over [0, total) that lie wholly inside `owned`, from left to right: the
// subtree roots that a rank owning these slices can compute alone. Empty if `owned` is empty.
std::vector<SliceRange> SubtreeRoots(SliceRange owned, int total);

// Adds up `roots` (left to right, covering `node` exactly, each a node of the tree below `node`) in tree
// order. `leaf(i)` gives the value of roots[i]; `add(left, right)` the sum. Calls leaf in order 0, 1, 2 ...
template <typename Value, typename Leaf, typename Add>
Value SumInTreeOrder(SliceRange node, const std::vector<SliceRange>& roots, int& next, Leaf leaf, Add add) {
  if (roots[next] == node) return leaf(next++);
  const int middle = SliceTreeMiddle(node);
  Value left = SumInTreeOrder<Value>({node.begin, middle}, roots, next, leaf, add);
  Value right = SumInTreeOrder<Value>({middle, node.end}, roots, next, leaf, add);
  return add(std::move(left), std::move(right));
}

// After how many of the leaves [0, total) which additions are due: additions[i] is the number of pairwise
// additions of the two topmost partial sums of a stack once slice i of `node` has been pushed. A kernel that
// walks the slices once keeps at most log2(total) + 2 partial sums.
std::vector<int> AdditionsAfterEachSlice(SliceRange node);

}  // namespace bellwether
