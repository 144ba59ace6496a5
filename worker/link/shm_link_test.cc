// Shared memory between processes: peers that die, stop or lie. (What every link promises: link_test.cc.)
#include "worker/link/shm_link.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "common/check.h"

namespace bellwether {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr ShmIdentity kIdentity{.epoch = {3}, .creator = 0, .opener = 1};
constexpr MessageTag kTag{.epoch = {3}, .step = {8}, .rows = 1, .cols = 100};

// A link to a child process that runs `body` with its end, then ends without clean-up.
class Child {
 public:
  Child(absl::Duration wait_limit, const std::function<void(Link&)>& body) {
    auto created = ShmSegment::Create(kIdentity);
    BW_CHECK(created.ok());
    int sockets[2];
    BW_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    UniqueFd ours(sockets[0]), theirs(sockets[1]);
    pid_ = fork();
    BW_CHECK(pid_ >= 0);
    if (pid_ == 0) {
      { UniqueFd closed = std::move(ours); }
      auto opened = ShmSegment::Open(created->fd, kIdentity);
      BW_CHECK(opened.ok());
      body(*MakeShmLink(*std::move(opened), std::move(theirs), {.peer = "parent"}));
      _exit(0);
    }
    link_ = MakeShmLink(std::move(created->segment), std::move(ours),
                        {.peer = "child", .wait_limit = wait_limit});
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Link& link() { return *link_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  std::unique_ptr<Link> link_;
};

const std::vector<float> kNumbers(100, 1.5f);

TEST(ShmLink, ExchangesWithAnotherProcess) {
  Child child(absl::Seconds(20), [](Link& link) {
    std::vector<float> numbers(100);
    while (link.Receive(kTag, absl::MakeSpan(numbers)).ok()) {
      for (float& number : numbers) number *= 2;
      (void)link.Send(kTag, numbers);
    }
  });
  for (int i = 0; i < 1000; ++i) {
    std::vector<float> received(100);
    ASSERT_TRUE(child.link().Send(kTag, kNumbers).ok());
    const absl::Status status = child.link().Receive(kTag, absl::MakeSpan(received));
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(received, std::vector<float>(100, 3.0f));
  }
}

// The wait limit is a minute: only the hang-up of the socket can end these waits in time.
TEST(ShmLink, AKilledPeerIsNoticed) {
  Child child(absl::Minutes(1), [](Link& link) {
    (void)link.Send(kTag, kNumbers);
    raise(SIGKILL);
  });
  std::vector<float> received(100);
  ASSERT_TRUE(child.link().Receive(kTag, absl::MakeSpan(received)).ok());
  EXPECT_EQ(received, kNumbers);
  const absl::Status status = child.link().Receive(kTag, absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("child"), HasSubstr("step 8")));
}

TEST(ShmLink, APeerKilledInAReceiveIsNoticed) {
  Child child(absl::Minutes(1), [](Link& link) {
    std::vector<float> never(100);
    (void)link.Receive(kTag, absl::MakeSpan(never));
  });
  kill(child.pid(), SIGKILL);
  std::vector<float> received(100);
  EXPECT_EQ(child.link().Receive(kTag, absl::MakeSpan(received)).code(), absl::StatusCode::kUnavailable);
}

TEST(ShmLink, SendingToAKilledPeerEnds) {
  Child child(absl::Minutes(1), [](Link&) { raise(SIGKILL); });
  const std::vector<float> more_than_fits(1 << 20);
  EXPECT_EQ(child.link().Send(kTag, more_than_fits).code(), absl::StatusCode::kUnavailable);
}

TEST(ShmLink, AStoppedPeerIsNoticedAfterTheWaitLimit) {
  Child child(absl::Milliseconds(150), [](Link& link) {
    (void)link.Send(kTag, kNumbers);
    raise(SIGSTOP);
  });
  std::vector<float> received(100);
  int state = 0;
  ASSERT_EQ(waitpid(child.pid(), &state, WUNTRACED), child.pid());
  ASSERT_TRUE(WIFSTOPPED(state));
  ASSERT_TRUE(child.link().Receive(kTag, absl::MakeSpan(received)).ok());
  const absl::Status status = child.link().Receive(kTag, absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("child"), HasSubstr("step 8")));
}

// What a peer writes into the memory is not believed.
class LyingPeerTest : public testing::Test {
 protected:
  LyingPeerTest() {
    auto created = ShmSegment::Create(kIdentity);
    BW_CHECK(created.ok());
    auto opened = ShmSegment::Open(created->fd, kIdentity);
    BW_CHECK(opened.ok());
    int sockets[2];
    BW_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    socket_ = UniqueFd(sockets[1]);
    peer_ = std::make_unique<ShmSegment>(*std::move(opened));
    link_ = MakeShmLink(std::move(created->segment), UniqueFd(sockets[0]), {.peer = "liar"});
  }
  UniqueFd socket_;
  std::unique_ptr<ShmSegment> peer_;
  std::unique_ptr<Link> link_;
};

TEST_F(LyingPeerTest, MoreBytesThanTheRingHolds) {
  peer_->header().rings[1].written = kShmRingBytes + 64;
  std::vector<float> received(100);
  EXPECT_EQ(link_->Receive(kTag, absl::MakeSpan(received)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LyingPeerTest, PartOfALine) {
  peer_->header().rings[1].written = 65;
  std::vector<float> received(100);
  EXPECT_EQ(link_->Receive(kTag, absl::MakeSpan(received)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LyingPeerTest, ReadMoreThanWasWritten) {
  peer_->header().rings[0].read = 64;
  EXPECT_EQ(link_->Send(kTag, kNumbers).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LyingPeerTest, GarbageInsteadOfAHeader) {
  for (int i = 0; i < 64; ++i) peer_->ring_data(1)[i] = std::byte{0xA5};
  peer_->header().rings[1].written = 64;
  std::vector<float> received(100);
  EXPECT_EQ(link_->Receive(kTag, absl::MakeSpan(received)).code(), absl::StatusCode::kDataLoss);
}

TEST(ShmSegment, RefusesMemoryThatCouldShrinkOrIsAnothers) {
  const auto created = ShmSegment::Create(kIdentity);
  ASSERT_TRUE(created.ok());
  EXPECT_TRUE(ShmSegment::Open(created->fd, kIdentity).ok());
  EXPECT_NE(ftruncate(created->fd.get(), 4096), 0);  // the seal

  ShmIdentity next_epoch = kIdentity;
  next_epoch.epoch = {4};
  EXPECT_EQ(ShmSegment::Open(created->fd, next_epoch).status().code(), absl::StatusCode::kDataLoss);

  UniqueFd unsealed(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ShmSegment::Open(unsealed, kIdentity).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_EQ(fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
  EXPECT_EQ(ShmSegment::Open(unsealed, kIdentity).status().code(), absl::StatusCode::kDataLoss);  // its size
  EXPECT_EQ(ShmSegment::Open(UniqueFd(), kIdentity).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace bellwether
