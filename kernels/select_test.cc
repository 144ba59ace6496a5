#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "kernels/kernels.h"

namespace bellwether::kernels {
namespace {

TEST(SelectTest, NamesAreReadBack) {
  for (int i = 0; i < kKernelLevels; ++i) {
    const auto level = static_cast<KernelLevel>(i);
    EXPECT_EQ(ParseKernelLevel(Name(level)), level);
  }
  EXPECT_EQ(ParseKernelLevel("avx"), std::nullopt);
  EXPECT_EQ(ParseKernelLevel(""), std::nullopt);
}

TEST(SelectTest, ReferenceAndPortableRunEverywhere) {
  const std::vector<KernelLevel> levels = AvailableKernelLevels();
  ASSERT_GE(levels.size(), 2u);
  EXPECT_EQ(levels[0], KernelLevel::kReference);
  EXPECT_EQ(levels[1], KernelLevel::kPortable);
  EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
}

TEST(SelectTest, TablesAreCompleteAndKnowTheirLevel) {
  for (KernelLevel level : AvailableKernelLevels()) {
    SCOPED_TRACE(std::string(Name(level)));
    const KernelTable& table = **GetKernels(level);
    EXPECT_EQ(table.level, level);
    EXPECT_TRUE(table.prepare_rows && table.matmul && table.write_kv && table.attention && table.rms_norm &&
                table.layer_norm && table.rope && table.silu_multiply && table.gelu && table.add_bias &&
                table.add);
  }
}

TEST(SelectTest, AnUnavailableLevelSaysWhatIsMissing) {
  const std::vector<KernelLevel> available = AvailableKernelLevels();
  for (int i = 0; i < kKernelLevels; ++i) {
    const auto level = static_cast<KernelLevel>(i);
    if (std::find(available.begin(), available.end(), level) != available.end()) continue;
    const absl::Status status = GetKernels(level).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_NE(status.message().find(std::string(Name(level))), std::string::npos) << status;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(GetKernels(static_cast<KernelLevel>(kKernelLevels)).status()));
}

}  // namespace
}  // namespace bellwether::kernels
