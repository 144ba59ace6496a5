#include "worker/step_meter.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

absl::Duration Of(const StepMeter::Reading& reading, StepPart part) {
  return reading.parts[static_cast<size_t>(part)];
}

class StepMeterTest : public testing::Test {
 protected:
  void Spend(StepPart part, absl::Duration time) {
    meter_.Enter(part);
    clock_.Advance(time);
  }

  ManualClock clock_;
  StepMeter meter_{&clock_};
};

TEST_F(StepMeterTest, AllTimeIsSpentOnSomething) {
  const absl::Duration begin = clock_.Now();
  Spend(StepPart::kIdle, absl::Seconds(3));
  Spend(StepPart::kCompute, absl::Seconds(2));
  Spend(StepPart::kCollectiveWait, absl::Seconds(1));
  Spend(StepPart::kCompute, absl::Seconds(4));
  Spend(StepPart::kLinkWait, absl::Seconds(7));
  const StepMeter::Reading reading = meter_.Read();
  EXPECT_EQ(Of(reading, StepPart::kIdle), absl::Seconds(3));
  EXPECT_EQ(Of(reading, StepPart::kCompute), absl::Seconds(6));
  EXPECT_EQ(Of(reading, StepPart::kCollectiveWait), absl::Seconds(1));
  EXPECT_EQ(Of(reading, StepPart::kLinkWait), absl::Seconds(7));
  absl::Duration in_layout;
  for (size_t part = 1; part < kStepParts; ++part) in_layout += reading.parts[part];
  EXPECT_EQ(in_layout, clock_.Now() - begin);
}

// An idle worker is idle now, not when its next step begins: charts would jump.
TEST_F(StepMeterTest, WhatGoesOnCounts) {
  meter_.Enter(StepPart::kIdle);
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(Of(meter_.Read(), StepPart::kIdle), absl::Seconds(5));
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(Of(meter_.Read(), StepPart::kIdle), absl::Seconds(10));
}

TEST_F(StepMeterTest, AWaitGoesBackToWhatWasBefore) {
  meter_.Enter(StepPart::kCompute);
  {
    const MeasuredWait wait(&meter_, StepPart::kLinkWait, /*peer=*/3);
    clock_.Advance(absl::Seconds(2));
  }
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Of(meter_.Read(), StepPart::kLinkWait), absl::Seconds(2));
  EXPECT_EQ(Of(meter_.Read(), StepPart::kCompute), absl::Seconds(1));
  EXPECT_EQ(meter_.peer_wait(3), absl::Seconds(2));
  EXPECT_EQ(meter_.peer_wait(2), absl::ZeroDuration());
  meter_.ForgetPeers();
  EXPECT_EQ(meter_.peer_wait(3), absl::ZeroDuration());
}

TEST_F(StepMeterTest, CountsStepsAndBytes) {
  meter_.CountStep();
  meter_.CountSent(StepMeter::Use::kCollective, 10);
  meter_.CountSent(StepMeter::Use::kCollective, 5);
  meter_.CountReceived(StepMeter::Use::kPipeline, 7);
  const StepMeter::Reading reading = meter_.Read();
  EXPECT_EQ(reading.steps, 1u);
  EXPECT_EQ(reading.sent_bytes[0], 15);
  EXPECT_EQ(reading.received_bytes[1], 7);
}

// Counters never go back, however a reader meets the writer.
TEST(StepMeter, ReadersSeeNoTimeTwice) {
  StepMeter meter;
  std::atomic<bool> done{false};
  std::thread writer([&] {
    while (!done) {
      meter.Enter(StepPart::kIdle);
      meter.Enter(StepPart::kCompute);
    }
  });
  StepMeter::Reading last = meter.Read();
  for (int i = 0; i < 20000; ++i) {
    const StepMeter::Reading reading = meter.Read();
    for (size_t part = 1; part < kStepParts; ++part) ASSERT_GE(reading.parts[part], last.parts[part]);
    last = reading;
  }
  done = true;
  writer.join();
}

}  // namespace
}  // namespace bellwether
