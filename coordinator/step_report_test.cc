#include "coordinator/step_report.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(StepReportTest, PredictedAgainstActualOnceAMinute) {
  StepReport report;
  absl::Duration now = absl::Hours(1);
  EXPECT_EQ(report.Due(now), "");
  now += absl::Hours(1);
  EXPECT_EQ(report.Due(now), "") << "without steps there is nothing to tell";
  for (int i = 0; i < 10; ++i) {
    report.Add({.took = absl::Seconds(5), .busy = absl::Seconds(4), .planned = absl::Milliseconds(3200)});
  }
  EXPECT_EQ(report.Due(now + absl::Seconds(59)), "");
  EXPECT_EQ(report.Due(now + absl::Seconds(60)),
            "the last 60 s: 10 steps, one every 4 s while there was something to do; the plan says 3.2 s at "
            "least: 1.25 times that");
  EXPECT_EQ(report.Due(now + absl::Seconds(200)), "");
}

// Steps that were there before anybody looked again were told of at once, as those of all the time before.
TEST(StepReportTest, TheNextMinuteBeginsWithTheLine) {
  StepReport report;
  const absl::Duration now = absl::Hours(1);
  EXPECT_EQ(report.Due(now), "");
  report.Add({.busy = absl::Seconds(1), .planned = absl::Seconds(1)});
  EXPECT_NE(report.Due(now + absl::Seconds(60)), "");
  report.Add({.busy = absl::Seconds(1), .planned = absl::Seconds(1)});
  EXPECT_EQ(report.Due(now + absl::Seconds(61)), "");
  EXPECT_NE(report.Due(now + absl::Seconds(120)), "");
}

}  // namespace
}  // namespace bellwether
