#include "common/service_watchdog.h"

#include <memory>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

class ServiceWatchdogTest : public testing::Test {
 protected:
  ManualClock clock_;
  int said_ = 0;
  ServiceWatchdog watchdog_{&clock_, absl::Seconds(10), [this] { ++said_; }};
};

TEST_F(ServiceWatchdogTest, SpeaksWhenEveryLoopHasTurned) {
  ServiceWatchdog::Pulse engine(&watchdog_);
  ServiceWatchdog::Pulse view(&watchdog_);
  engine.Turned();
  EXPECT_EQ(said_, 0);
  view.Turned();
  EXPECT_EQ(said_, 1);
}

TEST_F(ServiceWatchdogTest, IsSilentWhileOneLoopHangs) {
  ServiceWatchdog::Pulse engine(&watchdog_);
  ServiceWatchdog::Pulse view(&watchdog_);
  engine.Turned();
  view.Turned();
  for (int i = 0; i < 100; ++i) {
    clock_.Advance(absl::Seconds(1));
    view.Turned();
  }
  EXPECT_EQ(said_, 1) << "the engine hangs, however often the view turns";
  engine.Turned();
  EXPECT_EQ(said_, 2) << "and is back";
}

TEST_F(ServiceWatchdogTest, SpeaksNoOftenerThanIsAsked) {
  ServiceWatchdog::Pulse loop(&watchdog_);
  for (int i = 0; i < 1000; ++i) {  // 20 s
    loop.Turned();
    clock_.Advance(absl::Milliseconds(20));
  }
  EXPECT_EQ(said_, 2);
}

TEST_F(ServiceWatchdogTest, ALoopThatHasEndedIsNotWaitedFor) {
  ServiceWatchdog::Pulse view(&watchdog_);
  auto engine = std::make_unique<ServiceWatchdog::Pulse>(&watchdog_);
  view.Turned();
  engine.reset();
  view.Turned();
  EXPECT_EQ(said_, 1);
}

TEST_F(ServiceWatchdogTest, WhoAsksHearsOfALoopThatStandsStill) {
  ServiceWatchdog quiet(&clock_, absl::InfiniteDuration(), [] {});  // no manager asks
  for (ServiceWatchdog* watchdog : {&watchdog_, &quiet}) {
    EXPECT_TRUE(watchdog->Alive().ok()) << "before there is a loop";
    ServiceWatchdog::Pulse engine(watchdog);
    ServiceWatchdog::Pulse view(watchdog);
    clock_.Advance(absl::Seconds(50));
    view.Turned();
    EXPECT_TRUE(watchdog->Alive().ok());
    clock_.Advance(absl::Seconds(15));
    EXPECT_NE(watchdog->Alive().message().find("1m5s"), absl::string_view::npos) << watchdog->Alive();
    engine.Turned();
    EXPECT_TRUE(watchdog->Alive().ok());
  }
}

TEST(WatchdogIntervalTest, IsHalfOfWhatTheManagerAsksThisProcessFor) {
  EXPECT_EQ(WatchdogInterval("60000000", nullptr, 7), absl::Seconds(30));
  EXPECT_EQ(WatchdogInterval("60000000", "7", 7), absl::Seconds(30));
  EXPECT_EQ(WatchdogInterval("60000000", "8", 7), absl::InfiniteDuration()) << "meant for who started this";
  for (const char* none : {static_cast<const char*>(nullptr), "", "0", "-5", "soon"}) {
    EXPECT_EQ(WatchdogInterval(none, nullptr, 7), absl::InfiniteDuration());
  }
}

}  // namespace
}  // namespace bellwether
