#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
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

  explicit Server(const TlsOptions& tls = {}) {
    auto started = GrpcLinkListener::Start(
        "127.0.0.1:0", [this](std::unique_ptr<IncomingPeer> peer) { rendezvous.Offer(std::move(peer)); },
        tls);
    BW_CHECK(started.ok());
    listener = *std::move(started);
  }
};

const LinkHello kHello{.epoch = {3}, .from = 0, .to = 1, .secret = "wool"};

// What a worker of a cluster has whose certificates are those of `authority`; made when it is first asked
// for.
TlsOptions ClusterTls(const std::string& authority) {
  const std::string directory =
      absl::StrCat(testing::TempDir(), "/grpc_link_test.", getpid(), ".", authority);
  static std::map<std::string, bool> made;
  if (!std::exchange(made[authority], true))
    BW_CHECK(std::system(absl::StrCat("tools/make_certificates.sh ", directory, " flock").c_str()) == 0);
  return {.certificate = directory + "/flock.pem",
          .key = directory + "/flock.key",
          .authority = directory + "/authority.pem",
          .server_name = "flock"};
}

// The link that connects and the link that accepts, each knowing the other by the name given.
Ends MakeGrpcEnds(absl::Duration wait_limit, const std::string& connecting, const std::string& accepting,
                  const TlsOptions& tls = {}) {
  auto server = std::make_shared<Server>(tls);
  const auto security = LinkSecurity(tls);
  BW_CHECK(security.ok());
  auto outgoing =
      ConnectGrpc(server->listener->address(), kHello, EndOptions(accepting, wait_limit), security->get());
  BW_CHECK(outgoing.ok());
  auto incoming = server->rendezvous.Take(kHello, absl::Seconds(20));
  BW_CHECK(incoming.ok());
  auto accepted = (*incoming)->Accept(EndOptions(connecting, wait_limit));
  BW_CHECK(accepted.ok());
  auto connected = (*outgoing)->Poll(absl::Seconds(20));
  BW_CHECK(connected.ok() && *connected != nullptr);
  return {server, *std::move(connected), *std::move(accepted)};
}

Ends MakeFirstConnects(absl::Duration wait_limit) { return MakeGrpcEnds(wait_limit, "first", "second"); }
Ends MakeSecondConnects(absl::Duration wait_limit) {
  Ends ends = MakeGrpcEnds(wait_limit, "second", "first");
  std::swap(ends.first, ends.second);
  return ends;
}

Ends MakeEncrypted(absl::Duration wait_limit) {
  return MakeGrpcEnds(wait_limit, "first", "second", ClusterTls("ours"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, LinkTest,
                         testing::Values(LinkKind{"grpc_first_connects", MakeFirstConnects},
                                         LinkKind{"grpc_encrypted", MakeEncrypted},
                                         LinkKind{"grpc_second_connects", MakeSecondConnects}),
                         [](const testing::TestParamInfo<LinkKind>& info) { return info.param.name; });

// Nobody without a certificate of the cluster's authority is even heard.
TEST(GrpcConnector, StrangersGetNoEncryptedLink) {
  const TlsOptions ours = ClusterTls("ours"), theirs = ClusterTls("theirs");
  TlsOptions none = ours, another = theirs, another_name = ours;
  none.certificate = none.key = "";
  another.authority = ours.authority;
  another_name.server_name = "wolves";
  Server server(ours);
  for (const TlsOptions& tls : {TlsOptions(), none, theirs, another, another_name}) {
    const auto security = LinkSecurity(tls);
    ASSERT_TRUE(security.ok()) << security.status();
    auto outgoing = ConnectGrpc(server.listener->address(), kHello, EndOptions("second", absl::Seconds(20)),
                                security->get());
    ASSERT_TRUE(outgoing.ok()) << outgoing.status();
    const auto link = (*outgoing)->Poll(absl::Seconds(20));
    EXPECT_TRUE(absl::IsUnavailable(link.status())) << link.status();
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(server.rendezvous.Take(kHello, absl::ZeroDuration()).status()));
}

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

// Else those who said hello and went away would keep their places (rendezvous_test).
TEST(GrpcConnector, APeerThatHasGoneIsKnownToBeGone) {
  Server server;
  auto outgoing = ConnectGrpc(server.listener->address(), kHello, EndOptions("second", absl::Seconds(20)));
  ASSERT_TRUE(outgoing.ok());
  const auto incoming = server.rendezvous.Take(kHello, absl::Seconds(20));
  ASSERT_TRUE(incoming.ok());
  EXPECT_FALSE((*incoming)->gone());
  outgoing->reset();
  const absl::Duration end = Clock::Real()->Now() + absl::Seconds(20);
  while (!(*incoming)->gone() && Clock::Real()->Now() < end) std::this_thread::yield();
  EXPECT_TRUE((*incoming)->gone());
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
