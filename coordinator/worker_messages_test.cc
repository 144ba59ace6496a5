#include "coordinator/worker_messages.h"

#include <limits>

#include "common/defaults.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(ReachableAddress, IsTheWorkersOwn) {
  EXPECT_EQ(ReachableAddress("10.0.0.7:7491", "ipv4:10.0.0.1:4711"), "10.0.0.7:7491");
  EXPECT_EQ(ReachableAddress("host-a:7491", "ipv4:10.0.0.1:4711"), "host-a:7491");
  EXPECT_EQ(ReachableAddress("", "ipv4:10.0.0.1:4711"), "");
}

// Prometheus would ask its own machine.
TEST(ReachableAddress, OfAnotherMachineIsNotItsLoopback) {
  EXPECT_EQ(ReachableAddress("127.0.0.1:7491", "ipv4:10.0.0.1:4711"), "");
  EXPECT_EQ(ReachableAddress("127.0.0.1:7491", "ipv4:127.0.0.1:4711"), "127.0.0.1:7491");
  EXPECT_EQ(ReachableAddress("127.0.0.1:7491", "unix:/tmp/x"), "127.0.0.1:7491");
}

// "0.0.0.0" is no place that Prometheus could ask.
TEST(ReachableAddress, OfAllAddressesIsTheOneItCalledFrom) {
  EXPECT_EQ(ReachableAddress("0.0.0.0:7491", "ipv4:10.0.0.1:4711"), "10.0.0.1:7491");
  EXPECT_EQ(ReachableAddress("[::]:7491", "ipv6:%5B::1%5D:4711"), "[::1]:7491");
  EXPECT_EQ(ReachableAddress("[::]:7491", "ipv6:[fe80::2]:4711"), "[fe80::2]:7491");
  EXPECT_EQ(ReachableAddress("0.0.0.0:7491", "unix:/tmp/x"), "");
  EXPECT_EQ(ReachableAddress("0.0.0.0:7491", ""), "");
}

v1::JoinRequest GoodJoin() {
  v1::JoinRequest join;
  join.set_name("sheep");
  join.set_threads(1);
  join.set_read_bytes_per_second(1e10);
  return join;
}

// An infinite rate was once "below 0", and one of 1e300 taken: a plan by it gives a worker everything.
TEST(CheckJoin, RefusesRatesThatCannotBe) {
  ASSERT_TRUE(CheckJoin(GoodJoin()).ok()) << CheckJoin(GoodJoin());
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  for (const double rate : {kInfinite, 1e300, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    v1::JoinRequest read = GoodJoin(), drive = GoodJoin(), quota = GoodJoin(), floats = GoodJoin(),
                    integers = GoodJoin();
    floats.set_float_operations_per_second(rate);
    integers.set_int8_operations_per_second(rate);
    EXPECT_FALSE(CheckJoin(floats).ok()) << rate;
    EXPECT_FALSE(CheckJoin(integers).ok()) << rate;
    read.set_read_bytes_per_second(rate);
    drive.set_drive_bytes_per_second(rate);
    EXPECT_FALSE(CheckJoin(read).ok()) << rate;
    EXPECT_FALSE(CheckJoin(drive).ok()) << rate;
    quota.set_cpu_quota(rate);
    EXPECT_EQ(CheckJoin(quota).ok(), rate == 1e300) << rate;
  }
  v1::JoinRequest join = GoodJoin();
  join.set_drive_bytes_per_second(kInfinite);
  EXPECT_EQ(CheckJoin(join).message(), "drive_bytes_per_second is inf, allowed is 0 to 1e+15");
}

v1::Heartbeat Beat() {
  v1::Heartbeat beat;
  beat.set_state(v1::WORKER_STATE_STEP);
  return beat;
}

TEST(FromProto, TakesWhatAWorkerWaitedFor) {
  v1::Heartbeat beat = Beat();
  v1::PeerWait* wait = beat.add_waits();
  wait->set_peer(3);
  wait->set_seconds(1.5);
  const absl::StatusOr<WorkerProgress> progress = FromProto(beat);
  ASSERT_TRUE(progress.ok()) << progress.status();
  ASSERT_EQ(progress->waits.size(), 1u);
  EXPECT_EQ(progress->waits[0].peer, 3);
  EXPECT_EQ(progress->waits[0].seconds, 1.5);
}

TEST(FromProto, RefusesWaitsThatCannotBe) {
  const struct {
    int32_t peer;
    double seconds;
  } wrong[] = {{-1, 1},
               {kWorkersMax, 1},
               {0, -1},
               {0, std::numeric_limits<double>::quiet_NaN()},
               {0, std::numeric_limits<double>::infinity()}};
  for (const auto& it : wrong) {
    v1::Heartbeat beat = Beat();
    v1::PeerWait* wait = beat.add_waits();
    wait->set_peer(it.peer);
    wait->set_seconds(it.seconds);
    EXPECT_FALSE(FromProto(beat).ok()) << it.peer << " " << it.seconds;
  }
  v1::Heartbeat beat = Beat();
  for (int i = 0; i <= kWorkersMax; ++i) beat.add_waits();
  EXPECT_FALSE(FromProto(beat).ok());
}

}  // namespace
}  // namespace bellwether
