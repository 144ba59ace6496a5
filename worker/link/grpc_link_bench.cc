// There and back over a gRPC link on this host: two messages of a size.
#include <benchmark/benchmark.h>

#include <thread>

#include "common/check.h"
#include "worker/link/grpc_connector.h"

namespace bellwether {
namespace {

void RoundTrip(benchmark::State& state) {
  const LinkHello hello{.epoch = {1}, .from = 0, .to = 1, .secret = "wool"};
  const LinkEndOptions end{.peer = "peer", .wait_limit = absl::Seconds(30)};
  Rendezvous rendezvous;
  auto listener = GrpcLinkListener::Start(
      "127.0.0.1:0", [&](std::unique_ptr<IncomingPeer> peer) { rendezvous.Offer(std::move(peer)); });
  BW_CHECK(listener.ok());
  auto outgoing = ConnectGrpc((*listener)->address(), hello, end);
  auto incoming = rendezvous.Take(hello, absl::Seconds(20));
  BW_CHECK(outgoing.ok() && incoming.ok());
  auto accepted = (*incoming)->Accept(end);
  auto connected = (*outgoing)->Poll(absl::Seconds(20));
  BW_CHECK(accepted.ok() && connected.ok() && *connected != nullptr);

  std::vector<float> data(state.range(0) / sizeof(float));
  const MessageTag tag{.epoch = {1}, .step = {1}, .rows = 1, .cols = static_cast<int32_t>(data.size())};
  std::thread peer([&, echo = data]() mutable {
    while ((*accepted)->Receive(tag, absl::MakeSpan(echo)).ok() && (*accepted)->Send(tag, echo).ok()) {
    }
  });
  for (auto _ : state) {
    BW_CHECK((*connected)->Send(tag, data).ok() && (*connected)->Receive(tag, absl::MakeSpan(data)).ok());
  }
  (*connected)->Abort(absl::AbortedError("the end"));
  peer.join();
  state.SetBytesProcessed(state.iterations() * state.range(0) * 2);
}
BENCHMARK(RoundTrip)
    ->ArgName("bytes")
    ->Arg(8 << 10)
    ->Arg(20 << 10)
    ->Arg(1 << 20)
    ->Arg(8 << 20)
    ->UseRealTime();

}  // namespace
}  // namespace bellwether
