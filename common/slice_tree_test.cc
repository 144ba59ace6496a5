#include "common/slice_tree.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

TEST(SliceTree, WholeTreeHasOneRoot) {
  EXPECT_THAT(SubtreeRoots({0, 16}, 16), ElementsAre(SliceRange{0, 16}));
}

TEST(SliceTree, UnevenRangesSendMoreRoots) {
  EXPECT_THAT(SubtreeRoots({0, 5}, 16), ElementsAre(SliceRange{0, 4}, SliceRange{4, 5}));
  EXPECT_THAT(SubtreeRoots({5, 10}, 16), ElementsAre(SliceRange{5, 6}, SliceRange{6, 8}, SliceRange{8, 10}));
  EXPECT_THAT(SubtreeRoots({3, 3}, 16), ElementsAre());
}

std::string Expression(SliceRange node) {
  if (node.size() == 1) return std::to_string(node.begin);
  const int middle = SliceTreeMiddle(node);
  return "(" + Expression({node.begin, middle}) + "+" + Expression({middle, node.end}) + ")";
}

// Every split of every tree gives the same expression, which is what makes the bits equal.
TEST(SliceTree, EverySplitSumsInTheSameOrder) {
  for (int total = 1; total <= 16; ++total) {
    const std::string expected = Expression({0, total});
    for (int a = 0; a <= total; ++a) {
      for (int b = a; b <= total; ++b) {
        std::vector<SliceRange> roots;
        for (SliceRange owned : {SliceRange{0, a}, SliceRange{a, b}, SliceRange{b, total}}) {
          for (SliceRange root : SubtreeRoots(owned, total)) roots.push_back(root);
        }
        int next = 0;
        const auto sum = SumInTreeOrder<std::string>(
            {0, total}, roots, next, [&](int i) { return Expression(roots[i]); },
            [](std::string left, std::string right) { return "(" + left + "+" + right + ")"; });
        EXPECT_EQ(sum, expected);
        EXPECT_EQ(next, static_cast<int>(roots.size()));
      }
    }
  }
}

TEST(SliceTree, StackOfPartialSumsFollowsTheTree) {
  for (int total = 1; total <= 16; ++total) {
    const std::vector<int> additions = AdditionsAfterEachSlice({0, total});
    ASSERT_EQ(static_cast<int>(additions.size()), total);
    std::vector<std::string> stack;
    for (int i = 0; i < total; ++i) {
      stack.push_back(std::to_string(i));
      for (int n = 0; n < additions[i]; ++n) {
        const std::string right = stack.back();
        stack.pop_back();
        stack.back() = "(" + stack.back() + "+" + right + ")";
      }
    }
    EXPECT_THAT(stack, ElementsAre(Expression({0, total})));
  }
}

}  // namespace
}  // namespace bellwether
