#include "cli/cluster_numbers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ClusterNumbersTest, FindsSeriesByNameAndLabel) {
  const ClusterNumbers numbers(
      {"# HELP bellwether_plan_tokens_per_second So many.\n"
       "# TYPE bellwether_plan_tokens_per_second gauge\n"
       "bellwether_plan_tokens_per_second{concurrency=\"one_sequence\"} 2.5\n"
       "bellwether_plan_tokens_per_second{concurrency=\"16\"} 40\n"
       "bellwether_epoch 7\n"
       "bellwether_epoch_of_another_kind 8\n",
       "bellwether_weights_streamed_bytes_total{worker=\"a b\"} 1e+09\n",
       "bellwether_weights_streamed_bytes_total{worker=\"c\"} 2e+09"});
  EXPECT_THAT(numbers.Of(Metric::kPlanTokenRate), ElementsAre(2.5, 40));
  EXPECT_THAT(numbers.Of(Metric::kPlanTokenRate, "\"16\""), ElementsAre(40));
  EXPECT_THAT(numbers.Of(Metric::kPlanTokenRate, "\"64\""), IsEmpty());
  EXPECT_THAT(numbers.Of(Metric::kEpoch), ElementsAre(7));
  EXPECT_EQ(numbers.Sum(Metric::kWeightsStreamed), 3e9);
  EXPECT_EQ(numbers.Sum(Metric::kWorkerSteps), 0);
}

TEST(ClusterNumbersTest, WhoDoesNotAnswerIsNamed) {
  const auto numbers = ClusterNumbers::Read("127.0.0.1:1");
  EXPECT_TRUE(absl::IsUnavailable(numbers.status()));
  EXPECT_THAT(std::string(numbers.status().message()), ::testing::HasSubstr("http://127.0.0.1:1/http_sd"));
}

}  // namespace
}  // namespace bellwether
