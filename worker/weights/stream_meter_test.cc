#include "worker/weights/stream_meter.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(StreamMeterTest, TimeCountsOnceHoweverManyReadsAreUnderWay) {
  ManualClock clock;
  StreamMeter meter(&clock);
  clock.Advance(absl::Seconds(1));
  meter.BeginRead();
  clock.Advance(absl::Seconds(2));
  EXPECT_EQ(meter.Read().reading, absl::Seconds(2)) << "the one that goes on counts";
  meter.BeginRead();
  clock.Advance(absl::Seconds(3));
  meter.EndRead();
  clock.Advance(absl::Seconds(4));
  meter.EndRead();
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(meter.Read().reading, absl::Seconds(9));
}

TEST(StreamMeterTest, RingsAreFilledAndLetGo) {
  ManualClock clock;
  StreamMeter meter(&clock);
  clock.Advance(absl::Seconds(7));  // without a ring nothing is full
  meter.AddRing(60);
  meter.AddRing(40);
  meter.Fill(50);
  clock.Advance(absl::Seconds(4));
  meter.Fill(50);
  clock.Advance(absl::Seconds(1));
  StreamMeter::Reading reading = meter.Read();
  EXPECT_EQ(reading.ring_bytes, 100);
  EXPECT_EQ(reading.filled_bytes, 100);
  EXPECT_EQ(reading.filled, absl::Seconds(3));
  meter.LetGo(100);
  clock.Advance(absl::Seconds(9));
  meter.RemoveRing(60);
  meter.RemoveRing(40);
  reading = meter.Read();
  EXPECT_EQ(reading.ring_bytes, 0);
  EXPECT_EQ(reading.filled_bytes, 0);
  EXPECT_EQ(reading.filled, absl::Seconds(3));
}

}  // namespace
}  // namespace bellwether
