#include "worker/link/rendezvous.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

// A peer that looks at the rendezvous when it is refused, as gRPC may do from within.
class FakePeer : public IncomingPeer {
 public:
  FakePeer(LinkHello hello, Rendezvous* rendezvous, std::vector<std::string>* refusals)
      : hello_(std::move(hello)), rendezvous_(*rendezvous), refusals_(*refusals) {}
  const LinkHello& hello() const override { return hello_; }
  bool gone() const override { return gone_ != nullptr && *gone_; }
  void GoesWith(const bool* gone) { gone_ = gone; }
  absl::StatusOr<std::unique_ptr<Link>> Accept(const LinkEndOptions&) override { return nullptr; }
  void Refuse(const absl::Status& reason) override {
    (void)rendezvous_.cancelled(hello_.epoch);
    refusals_.push_back(std::string(absl::StatusCodeToString(reason.code())));
  }

 private:
  const LinkHello hello_;
  const bool* gone_ = nullptr;
  Rendezvous& rendezvous_;
  std::vector<std::string>& refusals_;
};

class RendezvousTest : public ::testing::Test {
 protected:
  void Offer(const LinkHello& hello) {
    rendezvous_.Offer(std::make_unique<FakePeer>(hello, &rendezvous_, &refusals_));
  }
  Rendezvous rendezvous_;
  std::vector<std::string> refusals_;
};

TEST_F(RendezvousTest, APeerIsTakenByWhoeverWaitsForIt) {
  const LinkHello hello{{1}, 0, 1, "secret"};
  Offer(hello);
  const auto taken = rendezvous_.Take(hello, absl::ZeroDuration());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(rendezvous_.Take(hello, absl::ZeroDuration()).status()));
}

// It was called with the mutex held, and waited for itself where the call came back.
TEST_F(RendezvousTest, APeerIsRefusedWithoutTheMutex) {
  Offer({{1}, 0, 1, "secret"});
  rendezvous_.Begin({2});
  EXPECT_THAT(refusals_, ElementsAre("FAILED_PRECONDITION"));
  Offer({{1}, 0, 1, "secret"});
  EXPECT_THAT(refusals_, ElementsAre("FAILED_PRECONDITION", "FAILED_PRECONDITION"));
  Offer({{2}, 0, 1, "guess"});
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(rendezvous_.Take({{2}, 0, 1, "secret"}, absl::ZeroDuration()).status()));
  EXPECT_THAT(refusals_, ElementsAre("FAILED_PRECONDITION", "FAILED_PRECONDITION", "PERMISSION_DENIED"));
  rendezvous_.Cancel({2});
  EXPECT_TRUE(absl::IsCancelled(rendezvous_.Take({{2}, 0, 1, "secret"}, absl::InfiniteDuration()).status()));
}

// Strangers that say hello and go away again used to fill the house until the worker was started anew.
TEST_F(RendezvousTest, WhoHasGoneMakesRoomWhenTheHouseIsFull) {
  bool gone = false;
  for (int i = 0; i < 1040; ++i) {
    auto peer = std::make_unique<FakePeer>(LinkHello{{7}, i, 0, "guess"}, &rendezvous_, &refusals_);
    peer->GoesWith(&gone);
    rendezvous_.Offer(std::move(peer));
  }
  EXPECT_EQ(refusals_.size(), 16u) << "more than 1024 do not wait";
  gone = true;
  const LinkHello hello{{7}, 0, 1, "secret"};
  Offer(hello);
  EXPECT_EQ(refusals_.size(), 16u);
  EXPECT_TRUE(rendezvous_.Take(hello, absl::ZeroDuration()).ok());
}

// As the threads of listeners and the one of the epochs do.
TEST_F(RendezvousTest, PeersGoFromOneThreadToAnother) {
  constexpr int kPeers = 200;
  std::thread listener([this] {
    for (int i = 0; i < kPeers; ++i) Offer({{1}, i, 0, i % 2 == 0 ? "secret" : "guess"});
    Offer({{1}, kPeers, 0, "secret"});
  });
  // The last one first: those before it wait meanwhile.
  EXPECT_TRUE(rendezvous_.Take({{1}, kPeers, 0, "secret"}, absl::InfiniteDuration()).ok());
  listener.join();
  for (int i = 0; i < kPeers; ++i) {
    EXPECT_EQ(rendezvous_.Take({{1}, i, 0, "secret"}, absl::ZeroDuration()).ok(), i % 2 == 0);
  }
  EXPECT_EQ(refusals_.size(), kPeers / 2u);
}

TEST_F(RendezvousTest, AnyThreadMayEndAWait) {
  for (uint64_t epoch = 1; epoch <= 50; ++epoch) {
    std::thread other([&] { rendezvous_.Cancel({epoch}); });
    EXPECT_TRUE(
        absl::IsCancelled(rendezvous_.Take({{epoch}, 0, 1, "secret"}, absl::InfiniteDuration()).status()));
    other.join();
  }
}

}  // namespace
}  // namespace bellwether
