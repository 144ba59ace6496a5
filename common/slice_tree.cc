#include "common/slice_tree.h"

#include "common/check.h"

namespace bellwether {
namespace {

void CollectRoots(SliceRange node, SliceRange owned, std::vector<SliceRange>& roots) {
  if (node.end <= owned.begin || node.begin >= owned.end) return;
  if (owned.begin <= node.begin && node.end <= owned.end) {
    roots.push_back(node);
    return;
  }
  const int middle = SliceTreeMiddle(node);
  CollectRoots({node.begin, middle}, owned, roots);
  CollectRoots({middle, node.end}, owned, roots);
}

void CollectAdditions(SliceRange node, std::vector<int>& additions) {
  if (node.size() == 1) {
    additions.push_back(0);
    return;
  }
  const int middle = SliceTreeMiddle(node);
  CollectAdditions({node.begin, middle}, additions);
  CollectAdditions({middle, node.end}, additions);
  ++additions.back();
}

}  // namespace

std::vector<SliceRange> SubtreeRoots(SliceRange owned, int total) {
  BW_CHECK(0 <= owned.begin && owned.begin <= owned.end && owned.end <= total);
  std::vector<SliceRange> roots;
  if (owned.size() > 0) CollectRoots({0, total}, owned, roots);
  return roots;
}

std::vector<int> AdditionsAfterEachSlice(SliceRange node) {
  std::vector<int> additions;
  if (node.size() > 0) CollectAdditions(node, additions);
  return additions;
}

}  // namespace bellwether
