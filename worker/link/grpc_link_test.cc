#include <gtest/gtest.h>

#include "common/check.h"
#include "worker/link/grpc_connector.h"
#include "worker/link/testing/link_contract.h"

namespace bellwether {
namespace {

LinkEndOptions EndOptions(const std::string& peer, absl::Duration wait_limit) {
  return {.peer = peer, .wait_limit = wait_limit};
}

// A listener, and what has come to it.
struct Server {
  Rendezvous rendezvous;
  std::unique_ptr<GrpcLinkListener> listener;

  Server() {
    auto started = GrpcLinkListener::Start(
        "127.0.0.1:0", [this](std::unique_ptr<IncomingPeer> peer) { rendezvous.Offer(std::move(peer)); });
    BW_CHECK(started.ok());
    listener = *std::move(started);
  }
};

const LinkHello kHello{.epoch = {3}, .from = 0, .to = 1, .secret = "wool"};

Ends MakeGrpcEnds(absl::Duration wait_limit) {
  auto server = std::make_shared<Server>();
  auto outgoing = ConnectGrpc(server->listener->address(), kHello, EndOptions("second", wait_limit));
  BW_CHECK(outgoing.ok());
  auto incoming = server->rendezvous.Take(kHello, absl::Seconds(20));
  BW_CHECK(incoming.ok());
  auto second = (*incoming)->Accept(EndOptions("first", wait_limit));
  BW_CHECK(second.ok());
  auto first = (*outgoing)->Poll(absl::Seconds(20));
  BW_CHECK(first.ok() && *first != nullptr);
  return {server, *std::move(first), *std::move(second)};
}

Ends MakeReversed(absl::Duration wait_limit) {
  Ends ends = MakeGrpcEnds(wait_limit);
  std::swap(ends.first, ends.second);
  return ends;
}

INSTANTIATE_TEST_SUITE_P(Kinds, LinkTest,
                         testing::Values(LinkKind{"grpc_first_connects", MakeGrpcEnds},
                                         LinkKind{"grpc_second_connects", MakeReversed}),
                         [](const testing::TestParamInfo<LinkKind>& info) { return info.param.name; });

TEST(GrpcConnector, ARefusalSaysWhy) {
  Server server;
  auto outgoing = ConnectGrpc(server.listener->address(), kHello, EndOptions("second", absl::Seconds(20)));
  ASSERT_TRUE(outgoing.ok());
  LinkHello other = kHello;
  other.secret = "cotton";
  EXPECT_FALSE(server.rendezvous.Take(other, absl::Milliseconds(500)).ok());
  const auto link = (*outgoing)->Poll(absl::Seconds(20));
  EXPECT_EQ(link.status().code(), absl::StatusCode::kPermissionDenied) << link.status();
  EXPECT_THAT(std::string(link.status().message()), testing::HasSubstr("secret"));
}

TEST(GrpcConnector, NobodyThere) {
  std::string address;
  {
    Server server;
    address = server.listener->address();
  }
  auto outgoing = ConnectGrpc(address, kHello, EndOptions("second", absl::Seconds(20)));
  ASSERT_TRUE(outgoing.ok());
  const auto link = (*outgoing)->Poll(absl::Seconds(20));
  EXPECT_EQ(link.status().code(), absl::StatusCode::kUnavailable) << link.status();
}

TEST(GrpcConnector, APortInUseIsAnError) {
  Server server;
  auto second = GrpcLinkListener::Start(server.listener->address(), [](std::unique_ptr<IncomingPeer>) {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable) << second.status();
}

}  // namespace
}  // namespace bellwether
