#include "cli/load/load_report.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

absl::Duration At(double seconds) { return absl::Seconds(seconds); }

LoadResult Answered(double due, double sent, double first, double end, int tokens) {
  LoadResult result{.due = At(due), .sent = At(sent), .first = At(first), .end = At(end)};
  result.prompt_tokens = 10;
  result.generated_tokens = tokens;
  return result;
}

TEST(LoadReport, QuantilesAreValuesThatWereSeen) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const LoadQuantiles quantiles = QuantilesOf(values);
  EXPECT_EQ(quantiles.mean, 50.5);
  EXPECT_EQ(quantiles.p50, 50);
  EXPECT_EQ(quantiles.p90, 90);
  EXPECT_EQ(quantiles.p99, 99);
  EXPECT_EQ(quantiles.most, 100);
  EXPECT_EQ(QuantilesOf({3}).p99, 3);
  EXPECT_EQ(QuantilesOf({}).most, 0);
}

TEST(LoadReport, CountsFromWhenARequestWasDueSoThatLatenessOfTheLoadIsNotHidden) {
  const LoadReport report = MakeLoadReport({Answered(1, 4, 5, 9, 5)}, {});
  EXPECT_EQ(report.time_to_first_token.p50, 4);
  EXPECT_EQ(report.end_to_end.p50, 8);
  EXPECT_EQ(report.lateness.p50, 3);
  EXPECT_EQ(report.time_per_output_token.p50, 1);  // four tokens after the first in four seconds
  EXPECT_EQ(report.seconds, 8);
}

TEST(LoadReport, ErrorsAreCountedByKindAndAreNoAnswers) {
  LoadResult refused{.due = At(0), .sent = At(0), .first = At(0), .end = At(0.1)};
  refused.error = "HTTP 429";
  refused.why = "256 requests wait already";
  const LoadReport report =
      MakeLoadReport({Answered(0, 0, 1, 2, 11), refused, refused}, {.time_to_first_token = 5});
  EXPECT_EQ(report.requests, 3);
  EXPECT_EQ(report.answered, 1);
  EXPECT_THAT(report.errors, ElementsAre(Pair("HTTP 429", 2)));
  EXPECT_EQ(report.generated_tokens, 11);
  EXPECT_EQ(report.time_to_first_token.most, 1);
  EXPECT_EQ(report.within, 1);
  EXPECT_THAT(ToText(report), HasSubstr("2 failed: HTTP 429, the first: 256 requests wait already\n"));
  EXPECT_EQ(ToJson(report)["errors"]["HTTP 429"].get<int>(), 2);
}

TEST(LoadReport, GoodputCountsWhatKeepsAllObjectives) {
  const std::vector<LoadResult> results = {
      Answered(0, 0, 1, 2, 11),   // keeps all
      Answered(0, 0, 3, 4, 11),   // late
      Answered(0, 0, 1, 10, 11),  // slow
  };
  EXPECT_EQ(MakeLoadReport(results, {.time_to_first_token = 2, .time_per_output_token = 0.5}).within, 1);
  EXPECT_EQ(MakeLoadReport(results, {.time_to_first_token = 2}).within, 2);
  EXPECT_EQ(MakeLoadReport(results, {.end_to_end = 5}).within, 2);
  EXPECT_FALSE(MakeLoadReport(results, {}).has_objectives);
}

TEST(LoadReport, TheKneeIsTheSmallestLoadThatHasNearlyAllThereIs) {
  std::vector<LoadReport> sweep(4);
  const int64_t tokens[] = {100, 180, 195, 190};
  for (int i = 0; i < 4; ++i) sweep[i] = {.seconds = 1, .generated_tokens = tokens[i]};
  EXPECT_EQ(KneeOf(sweep), 1u);
  EXPECT_EQ(KneeOf(absl::MakeConstSpan(sweep).first(1)), 0u);
  EXPECT_EQ(KneeOf({}), 0u);
}

TEST(LoadReport, NothingWasSent) {
  const LoadReport report = MakeLoadReport({}, {});
  EXPECT_EQ(report.TokensPerSecond(), 0);
  EXPECT_FALSE(ToText(report).empty());
}

}  // namespace
}  // namespace bellwether
