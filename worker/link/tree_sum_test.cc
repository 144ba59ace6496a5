#include "worker/link/tree_sum.h"

#include <gtest/gtest.h>

#include <functional>

#include "common/random.h"

namespace bellwether {
namespace {

void AddFloats(const float* a, const float* b, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

// The definition of common/slice_tree.h, word for word.
float TreeSumOfSlices(const std::vector<float>& slices, int lo, int hi) {
  if (hi - lo == 1) return slices[lo];
  const int mid = lo + (hi - lo) / 2;
  return TreeSumOfSlices(slices, lo, mid) + TreeSumOfSlices(slices, mid, hi);
}

// Every contiguous split of the slices in two ranks, and one rank per slice.
TEST(TreeSum, SameBitsAsTheDefinition) {
  for (int total = 1; total <= 16; ++total) {
    std::vector<float> slices(total);
    for (int s = 0; s < total; ++s) slices[s] = (s % 3 - 1.3f) * (1 << (s % 7)) / 3.0f;
    for (int cut = 0; cut <= total; ++cut) {
      std::vector<SliceRange> roots = SubtreeRoots({0, cut}, total);
      for (const SliceRange& root : SubtreeRoots({cut, total}, total)) roots.push_back(root);
      const int64_t count = 2500;  // several blocks, the last not full
      std::vector<std::vector<float>> values;
      std::vector<const float*> pointers;
      for (const SliceRange& root : roots) {
        values.emplace_back(count, TreeSumOfSlices(slices, root.begin, root.end));
      }
      for (const std::vector<float>& value : values) pointers.push_back(value.data());
      std::vector<float> out(count, -1);
      TreeSum sum(roots, total, &AddFloats);
      sum.Sum(pointers, count, out.data());
      EXPECT_EQ(out, std::vector<float>(count, TreeSumOfSlices(slices, 0, total)))
          << total << " cut at " << cut;
    }
  }
}

TEST(TreeSum, LeavesItsRootsAlone) {
  std::vector<SliceRange> roots;
  for (int s = 0; s < 13; ++s) roots.push_back({s, s + 1});
  std::vector<std::vector<float>> values;
  for (int s = 0; s < 13; ++s) values.push_back({static_cast<float>(s), 1});
  const std::vector<std::vector<float>> before = values;
  std::vector<const float*> pointers;
  for (const std::vector<float>& value : values) pointers.push_back(value.data());
  TreeSum sum(roots, 13, &AddFloats);
  float out[2];
  sum.Sum(pointers, 2, out);
  EXPECT_EQ(out[0], 78);
  EXPECT_EQ(out[1], 13);
  EXPECT_EQ(values, before);
}

}  // namespace
}  // namespace bellwether
