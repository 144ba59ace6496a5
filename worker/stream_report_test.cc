#include "worker/stream_report.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

void Spend(StreamReport::Counts& counts, StepPart part, absl::Duration time) {
  counts.times.parts[static_cast<size_t>(part)] += time;
}

TEST(StreamReportTest, TellsOfTheTimeSinceTheLastLine) {
  StreamReport report;
  StreamReport::Counts counts{.streamed_bytes = 5'000'000'000};
  counts.times.steps = 100;
  Spend(counts, StepPart::kCompute, absl::Hours(1));
  const absl::Duration begin = absl::Hours(2);
  report.Begin(begin, counts);
  EXPECT_FALSE(report.IsDue(begin + absl::Seconds(59)));
  EXPECT_TRUE(report.IsDue(begin + absl::Seconds(60)));

  counts.streamed_bytes += 20'000'000'000;
  counts.times.steps += 10;
  Spend(counts, StepPart::kCompute, absl::Seconds(10));
  Spend(counts, StepPart::kWeightsWait, absl::Seconds(30));
  Spend(counts, StepPart::kIdle, absl::Seconds(24));
  counts.stream.reading += absl::Seconds(39);
  counts.stream.filled += absl::Seconds(32);
  EXPECT_EQ(report.Line(begin + absl::Seconds(64), counts),
            "the last 64 s: 10 steps of 40.0 s together, 18.6 GiB streamed; a read was under way for 97.5 % "
            "of that time, layers were waited for in 75.0 %; buffers were 50 % full");

  // Nothing twice; and what is read behind the last step is no more than all.
  ++counts.times.steps;
  Spend(counts, StepPart::kWeightsWait, absl::Seconds(1));
  counts.stream.reading += absl::Seconds(2);
  EXPECT_EQ(
      report.Line(begin + absl::Seconds(124), counts),
      "the last 60 s: 1 steps of 1.0 s together, 0 B streamed; a read was under way for 100.0 % of that "
      "time, layers were waited for in 100.0 %; buffers were 0 % full");
}

}  // namespace
}  // namespace bellwether
