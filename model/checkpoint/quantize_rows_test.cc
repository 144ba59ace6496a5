#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/random.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {
namespace {

std::vector<float> RandomValues(size_t count, float scale) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = scale * static_cast<float>(UniformFromCounter(7, 0, static_cast<int64_t>(i)) - 0.5);
  }
  return values;
}

TEST(QuantizeRowsTest, ErrorIsHalfAStepAtMost) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const int64_t cols : {1, 31, 32, 33, 100, 256}) {
      const int64_t rows = 5, groups = (cols + 31) / 32;
      const std::vector<float> values = RandomValues(rows * cols, 3);
      const QuantizedRows result = QuantizeRows(values, rows, cols, format);
      ASSERT_EQ(static_cast<int64_t>(result.q.size()), rows * cols);
      ASSERT_EQ(static_cast<int64_t>(result.scales.size()), rows * groups);
      EXPECT_TRUE(result.offsets.empty());
      for (int64_t i = 0; i < rows * cols; ++i) {
        const float scale = result.scales[i / cols * groups + i % cols / 32];
        EXPECT_EQ(F32FromF16(F16FromF32(scale)), scale);
        // int4 reaches from -8 to 7, so the value opposite to the largest may be clamped by one step.
        const float allowed = format == WeightFormat::kInt8 ? 0.57f : 1.01f;
        EXPECT_LE(std::fabs(values[i] - scale * result.q[i]), allowed * std::fabs(scale));
        if (format == WeightFormat::kInt4) {
          EXPECT_GE(result.q[i], -8);
          EXPECT_LE(result.q[i], 7);
        }
      }
    }
  }
}

TEST(QuantizeRowsTest, GroupsDoNotDependOnTheirNeighbours) {
  const std::vector<float> values = RandomValues(96, 1);
  const QuantizedRows whole = QuantizeRows(values, 1, 96, WeightFormat::kInt4);
  const QuantizedRows part = QuantizeRows(absl::MakeSpan(values).subspan(32), 1, 64, WeightFormat::kInt4);
  EXPECT_EQ(std::vector<int8_t>(whole.q.begin() + 32, whole.q.end()), part.q);
  EXPECT_EQ(std::vector<float>(whole.scales.begin() + 1, whole.scales.end()), part.scales);
}

TEST(QuantizeRowsTest, TiesGoToEven) {
  // The largest value makes the scale exactly 1.
  const std::vector<float> values = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f};
  const QuantizedRows result = QuantizeRows(values, 1, 7, WeightFormat::kInt8);
  EXPECT_EQ(result.scales, std::vector<float>{1});
  EXPECT_EQ(result.q, (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2}));
}

TEST(QuantizeRowsTest, ExtremeGroups) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const auto one = [&](std::vector<float> values) {
      return QuantizeRows(values, 1, values.size(), format);
    };
    EXPECT_EQ(one({0, 0}).q, (std::vector<int8_t>{0, 0}));
    EXPECT_EQ(one({0, 0}).scales[0], 0);
    EXPECT_TRUE(std::isnan(one({1, std::numeric_limits<float>::quiet_NaN()}).scales[0]));
    EXPECT_TRUE(std::isnan(one({1, -infinity}).scales[0]));
    EXPECT_EQ(std::fabs(one({1e30f, -3e38f}).scales[0]), 65504);  // as much as fp16 holds
    EXPECT_EQ(one({1e-30f, -1e-30f}).q, (std::vector<int8_t>{0, 0}));
    EXPECT_EQ(QuantizeRows({}, 0, 0, format).q.size(), 0u);
  }
}

}  // namespace
}  // namespace bellwether
