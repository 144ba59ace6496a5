#include "worker/link/connector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "common/check.h"
#include "worker/link/shm_connector.h"

namespace bellwether {
namespace {

using testing::HasSubstr;

// Workers of one epoch, each with a listener, all in this process.
class Flock {
 public:
  Flock(int workers, const std::string& grpc_listen_address) {
    for (int i = 0; i < workers; ++i) {
      auto listener = LinkListener::Start({.grpc_listen_address = grpc_listen_address});
      BW_CHECK(listener.ok());
      listeners_.push_back(*std::move(listener));
    }
  }
  int size() const { return static_cast<int>(listeners_.size()); }
  LinkListener& listener(int i) { return *listeners_[i]; }

  LinkPeer Peer(int i) const {
    return {.index = i,
            .name = "worker " + std::to_string(i),
            .unix_socket = same_host_ ? listeners_[i]->unix_socket() : "",
            .grpc_address = listeners_[i]->grpc_address()};
  }
  // What worker i asks for to be linked with all others.
  LinkListener::Request Request(int i, uint64_t epoch) const {
    LinkListener::Request request{.epoch = {epoch}, .secret = "wool", .own_index = i};
    for (int j = 0; j < size(); ++j) {
      if (j != i) request.peers.push_back(Peer(j));
    }
    return request;
  }
  void PretendOtherHosts() { same_host_ = false; }

 private:
  std::vector<std::unique_ptr<LinkListener>> listeners_;
  bool same_host_ = true;
};

void OnEveryWorker(int workers, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < workers; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// Every worker tells every other one its index.
void ExpectLinked(int own, const std::vector<LinkPeer>& peers, std::vector<std::unique_ptr<Link>>& links,
                  uint64_t epoch) {
  ASSERT_EQ(links.size(), peers.size());
  auto tag = [epoch](int rank) { return MessageTag{.epoch = {epoch}, .rank = rank, .rows = 1, .cols = 1}; };
  for (size_t p = 0; p < peers.size(); ++p) {
    const float number = static_cast<float>(own);
    ASSERT_TRUE(links[p]->Send(tag(own), {&number, 1}).ok());
  }
  for (size_t p = 0; p < peers.size(); ++p) {
    float number = -1;
    const absl::Status status = links[p]->Receive(tag(peers[p].index), {&number, 1});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(number, peers[p].index);
    EXPECT_THAT(links[p]->peer(), HasSubstr(peers[p].name));
  }
}

TEST(LinkListener, LinksEveryoneWithEveryoneEpochAfterEpoch) {
  Flock flock(5, "");
  for (uint64_t epoch : {1, 2, 7}) {
    OnEveryWorker(flock.size(), [&](int i) {
      const LinkListener::Request request = flock.Request(i, epoch);
      auto links = flock.listener(i).Connect(request);
      ASSERT_TRUE(links.ok()) << links.status();
      ExpectLinked(i, request.peers, *links, epoch);
      EXPECT_THAT(links->front()->peer(), HasSubstr("shared memory"));
    });
  }
}

TEST(LinkListener, TakesGrpcWhereTheSocketDoesNotOpen) {
  Flock flock(3, "127.0.0.1:0");
  flock.PretendOtherHosts();
  OnEveryWorker(flock.size(), [&](int i) {
    LinkListener::Request request = flock.Request(i, 1);
    for (LinkPeer& peer : request.peers) peer.unix_socket = "bellwether-of-another-host";
    auto links = flock.listener(i).Connect(request);
    ASSERT_TRUE(links.ok()) << links.status();
    ExpectLinked(i, request.peers, *links, 1);
    EXPECT_THAT(links->front()->peer(), HasSubstr("gRPC"));
  });
}

TEST(LinkListener, AnotherHostWithoutAnAddressIsAnErrorThatSaysWhatToDo) {
  Flock flock(2, "");
  flock.PretendOtherHosts();
  const auto links = flock.listener(0).Connect(flock.Request(0, 1));
  EXPECT_EQ(links.status().code(), absl::StatusCode::kUnavailable) << links.status();
  EXPECT_THAT(std::string(links.status().message()), HasSubstr("worker 1"));
  EXPECT_THAT(std::string(links.status().message()), HasSubstr("link address"));
}

TEST(LinkListener, AnAbsentPeerIsNamedAfterTheLimit) {
  Flock flock(2, "");
  for (int i : {0, 1}) {
    LinkListener::Request request = flock.Request(i, 1 + i);
    request.connect_limit = absl::Milliseconds(60);
    const auto links = flock.listener(i).Connect(request);
    EXPECT_EQ(links.status().code(), absl::StatusCode::kDeadlineExceeded) << links.status();
    EXPECT_THAT(std::string(links.status().message()), HasSubstr("worker " + std::to_string(1 - i)));
  }
}

TEST(LinkListener, CancelEndsTheWaitOnBothSides) {
  Flock flock(2, "");
  for (int waiting : {0, 1}) {
    const uint64_t epoch = 5 + waiting;
    std::thread cancel([&] { flock.listener(waiting).Cancel({epoch}); });
    EXPECT_EQ(flock.listener(waiting).Connect(flock.Request(waiting, epoch)).status().code(),
              absl::StatusCode::kCancelled);
    cancel.join();
    // And of an earlier epoch, at once.
    EXPECT_EQ(flock.listener(waiting).Connect(flock.Request(waiting, 2)).status().code(),
              absl::StatusCode::kCancelled);
  }
}

// Worker 0 is an epoch behind, and a stranger knows the address but not the secret; epoch 9 comes up all the
// same.
TEST(LinkListener, OldEpochsAndWrongSecretsAreRefusedAndDisturbNobody) {
  Flock flock(3, "");
  const LinkEndOptions end{.peer = "worker 2", .wait_limit = absl::Seconds(20)};
  auto stranger = ConnectShm(flock.listener(2).unix_socket(), {{9}, 0, 2, "cotton"}, end);
  auto early_of_old_epoch = ConnectShm(flock.listener(2).unix_socket(), {{8}, 0, 2, "wool"}, end);
  ASSERT_TRUE(stranger.ok() && early_of_old_epoch.ok());
  OnEveryWorker(flock.size(), [&](int i) {
    const LinkListener::Request request = flock.Request(i, 9);
    auto links = flock.listener(i).Connect(request);
    ASSERT_TRUE(links.ok()) << links.status();
    ExpectLinked(i, request.peers, *links, 9);
    if (i != 2) return;
    auto late_of_old_epoch = ConnectShm(flock.listener(2).unix_socket(), {{8}, 0, 2, "wool"}, end);
    ASSERT_TRUE(late_of_old_epoch.ok());
    EXPECT_EQ((*late_of_old_epoch)->Poll(absl::Seconds(20)).status().code(),
              absl::StatusCode::kFailedPrecondition);
  });
  EXPECT_EQ((*stranger)->Poll(absl::Seconds(20)).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ((*early_of_old_epoch)->Poll(absl::Seconds(20)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// Else those who said hello and went away would keep their places (rendezvous_test).
TEST(ShmListener, APeerThatHasGoneIsKnownToBeGone) {
  Rendezvous rendezvous;
  auto listener =
      ShmListener::Start([&](std::unique_ptr<IncomingPeer> peer) { rendezvous.Offer(std::move(peer)); });
  ASSERT_TRUE(listener.ok()) << listener.status();
  const LinkHello hello{{9}, 0, 1, "wool"};
  auto outgoing = ConnectShm((*listener)->name(), hello, {.peer = "worker 1"});
  ASSERT_TRUE(outgoing.ok()) << outgoing.status();
  const auto incoming = rendezvous.Take(hello, absl::Seconds(20));
  ASSERT_TRUE(incoming.ok()) << incoming.status();
  EXPECT_FALSE((*incoming)->gone());
  outgoing->reset();
  EXPECT_TRUE((*incoming)->gone());
}

TEST(ShmListener, SurvivesNonsense) {
  Flock flock(2, "");
  auto socket = ConnectUnix(flock.listener(1).unix_socket());
  ASSERT_TRUE(socket.ok());
  ASSERT_TRUE(SendPacket(socket->get(), "GET / HTTP/1.1").ok());
  { auto silent = ConnectUnix(flock.listener(1).unix_socket()); }
  OnEveryWorker(2, [&](int i) {
    const LinkListener::Request request = flock.Request(i, 1);
    auto links = flock.listener(i).Connect(request);
    ASSERT_TRUE(links.ok()) << links.status();
    ExpectLinked(i, request.peers, *links, 1);
  });
}

}  // namespace
}  // namespace bellwether
