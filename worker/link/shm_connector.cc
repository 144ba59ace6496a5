#include "worker/link/shm_connector.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status.h"
#include "common/system_random.h"
#include "worker/link/shm_link.h"
#include "worker/link/shm_segment.h"

namespace bellwether {
namespace {

// A connected process sends its hello at once; a stopped one must not hold up the others for long.
constexpr absl::Duration kHelloLimit = absl::Milliseconds(200);

// The first packet. Both ends run the same build on the same machine, so the struct itself travels.
struct HelloPacket {
  uint64_t magic = 0x31306f6c6c656862;  // "bhello01"
  uint64_t epoch = 0;
  int32_t from = 0, to = 0;
  uint32_t secret_bytes = 0;
  char secret[kLinkSecretBytesMax] = {};
};
// The answer: an absl::StatusCode, and its message after it.
struct AnswerPacket {
  int32_t code = 0;
};

std::optional<LinkHello> ParseHello(const std::string& bytes) {
  HelloPacket packet;
  const uint64_t magic = packet.magic;
  if (bytes.size() != sizeof(packet)) return std::nullopt;
  std::memcpy(&packet, bytes.data(), sizeof(packet));
  if (packet.magic != magic || packet.secret_bytes > sizeof(packet.secret)) return std::nullopt;
  return LinkHello{{packet.epoch}, packet.from, packet.to, std::string(packet.secret, packet.secret_bytes)};
}

absl::Status SendAnswer(int socket, const absl::Status& status) {
  const AnswerPacket answer{static_cast<int32_t>(status.code())};
  std::string bytes(reinterpret_cast<const char*>(&answer), sizeof(answer));
  absl::StrAppend(&bytes, status.message().substr(0, kUnixPacketBytesMax - sizeof(answer)));
  return SendPacket(socket, bytes);
}

class IncomingShm : public IncomingPeer {
 public:
  IncomingShm(LinkHello hello, UniqueFd socket, UniqueFd memory)
      : hello_(std::move(hello)), socket_(std::move(socket)), memory_(std::move(memory)) {}

  const LinkHello& hello() const override { return hello_; }
  bool gone() const override { return HungUp(socket_.get()); }

  absl::StatusOr<std::unique_ptr<Link>> Accept(const LinkEndOptions& options) override {
    auto segment =
        ShmSegment::Open(memory_, {.epoch = hello_.epoch, .creator = hello_.from, .opener = hello_.to});
    if (!segment.ok()) {
      Refuse(segment.status());
      return Annotate(segment.status(), options.peer);
    }
    BW_RETURN_IF_ERROR(Annotate(SendAnswer(socket_.get(), absl::OkStatus()), options.peer));
    return MakeShmLink(
        *std::move(segment), std::move(socket_),
        {.peer = options.peer, .wait_limit = options.wait_limit, .spin_pauses = options.spin_pauses});
  }

  // A peer that is gone by now need not hear it.
  void Refuse(const absl::Status& reason) override { (void)SendAnswer(socket_.get(), reason); }

 private:
  const LinkHello hello_;
  UniqueFd socket_;
  const UniqueFd memory_;
};

class OutgoingShm : public OutgoingPeer {
 public:
  OutgoingShm(UniqueFd socket, ShmSegment segment, LinkEndOptions options)
      : socket_(std::move(socket)), segment_(std::move(segment)), options_(std::move(options)) {}

  absl::StatusOr<std::unique_ptr<Link>> Poll(absl::Duration limit) override {
    if (!WaitReadable(socket_.get(), limit)) return nullptr;
    absl::StatusOr<UnixPacket> packet = ReceivePacket(socket_.get(), absl::ZeroDuration());
    if (!packet.ok()) return Annotate(packet.status(), options_.peer);
    AnswerPacket answer;
    if (packet->bytes.size() < sizeof(answer)) return absl::DataLossError(options_.peer + ": not an answer");
    std::memcpy(&answer, packet->bytes.data(), sizeof(answer));
    if (answer.code != 0) {
      return absl::Status(
          static_cast<absl::StatusCode>(answer.code),
          absl::StrCat(options_.peer, " refuses the link: ", packet->bytes.substr(sizeof(answer))));
    }
    return MakeShmLink(
        std::move(segment_), std::move(socket_),
        {.peer = options_.peer, .wait_limit = options_.wait_limit, .spin_pauses = options_.spin_pauses});
  }

 private:
  UniqueFd socket_;
  ShmSegment segment_;
  const LinkEndOptions options_;
};

std::string NewSocketName() {
  char random[16];
  FillRandom(random, sizeof(random));
  return absl::StrCat("bellwether-", absl::BytesToHexString(absl::string_view(random, sizeof(random))));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShmListener>> ShmListener::Start(IncomingPeerHandler handler) {
  std::string name = NewSocketName();
  BW_ASSIGN_OR_RETURN(UniqueFd socket, ListenUnix(name));
  int stop[2];
  if (pipe2(stop, O_CLOEXEC) != 0) return absl::ResourceExhaustedError("no file descriptors left for a pipe");
  return std::unique_ptr<ShmListener>(new ShmListener(std::move(name), std::move(socket), UniqueFd(stop[0]),
                                                      UniqueFd(stop[1]), std::move(handler)));
}

ShmListener::ShmListener(std::string name, UniqueFd socket, UniqueFd stop_read, UniqueFd stop_write,
                         IncomingPeerHandler handler)
    : name_(std::move(name)),
      socket_(std::move(socket)),
      stop_read_(std::move(stop_read)),
      stop_write_(std::move(stop_write)),
      handler_(std::move(handler)),
      thread_([this] { Run(); }) {}

ShmListener::~ShmListener() {
  { UniqueFd closed = std::move(stop_write_); }
  thread_.join();
}

void ShmListener::Run() {
  for (;;) {
    pollfd entries[2] = {{.fd = socket_.get(), .events = POLLIN}, {.fd = stop_read_.get(), .events = POLLIN}};
    (void)poll(entries, 2, -1);
    if (entries[1].revents != 0) return;
    if (entries[0].revents == 0) continue;
    absl::StatusOr<UniqueFd> connection = AcceptUnix(socket_.get());
    if (!connection.ok()) {
      LogWarning("link listener: ", connection.status().message());
      (void)poll(&entries[1], 1, 100);  // out of descriptors, perhaps: not in a circle
      continue;
    }
    absl::StatusOr<UnixPacket> packet = ReceivePacket(connection->get(), kHelloLimit);
    std::optional<LinkHello> hello;
    if (packet.ok()) hello = ParseHello(packet->bytes);
    if (!hello.has_value() || !packet->fd.valid()) {
      (void)SendAnswer(connection->get(),
                       absl::InvalidArgumentError("not a hello of a worker of this build"));
      continue;
    }
    handler_(std::make_unique<IncomingShm>(*std::move(hello), *std::move(connection), std::move(packet->fd)));
  }
}

absl::StatusOr<std::unique_ptr<OutgoingPeer>> ConnectShm(const std::string& name, const LinkHello& hello,
                                                         const LinkEndOptions& options) {
  HelloPacket packet;
  if (hello.secret.size() > sizeof(packet.secret)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a link secret has at most ", sizeof(packet.secret), " bytes"));
  }
  packet.epoch = hello.epoch.value;
  packet.from = hello.from;
  packet.to = hello.to;
  packet.secret_bytes = static_cast<uint32_t>(hello.secret.size());
  std::memcpy(packet.secret, hello.secret.data(), hello.secret.size());
  BW_ASSIGN_OR_RETURN(UniqueFd socket, ConnectUnix(name));
  BW_ASSIGN_OR_RETURN(auto created,
                      ShmSegment::Create({.epoch = hello.epoch, .creator = hello.from, .opener = hello.to}));
  BW_RETURN_IF_ERROR(SendPacket(socket.get(),
                                std::string_view(reinterpret_cast<const char*>(&packet), sizeof(packet)),
                                created.fd.get()));
  return std::make_unique<OutgoingShm>(std::move(socket), std::move(created.segment), options);
}

}  // namespace bellwether
