#include "common/tcp_listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/status.h"

namespace bellwether {
namespace {

// Out of descriptors or memory: others need a moment to give some back.
constexpr int kPauseMs = 100;
constexpr absl::Duration kLogInterval = absl::Seconds(10);

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

absl::StatusOr<Addresses> Resolve(const HostPort& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error == 0) return Addresses(found);
  return absl::InvalidArgumentError(
      absl::StrCat("cannot listen on ", address.ToString(), ": ", gai_strerror(error)));
}

absl::Status SystemError(const std::string& address) {
  const int error = errno;
  const std::string message = absl::StrCat("cannot listen on ", address, ": ", std::strerror(error),
                                           "; give a host:port that is free and belongs to this machine");
  return error == EADDRINUSE ? absl::AlreadyExistsError(message) : absl::UnavailableError(message);
}

in_port_t& PortOf(sockaddr* address) {
  return address->sa_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(address)->sin6_port
                                        : reinterpret_cast<sockaddr_in*>(address)->sin_port;
}

// Listens on `address`, whose port 0 becomes the one in use.
absl::StatusOr<UniqueFd> Listen(const std::string& name, const addrinfo& address) {
  UniqueFd fd(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  // A port whose connections have ended a moment ago is free; one that is listened on is not.
  if (!fd.valid() || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || listen(fd.get(), SOMAXCONN) != 0) {
    return SystemError(name);
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) return SystemError(name);
  PortOf(address.ai_addr) = PortOf(reinterpret_cast<sockaddr*>(&bound));
  return fd;
}

bool OutOfResources(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

TcpListener::TcpListener(Options options)
    : options_(std::move(options)), pause_lines_(1, kLogInterval), refusal_lines_(1, kLogInterval) {}

TcpListener::~TcpListener() { Stop(); }

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Bind(Options options) {
  std::unique_ptr<TcpListener> listener(new TcpListener(std::move(options)));
  BW_RETURN_IF_ERROR(listener->Open());
  return listener;
}

absl::Status TcpListener::Open() {
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!stop_.valid()) return SystemError(options_.address);
  BW_ASSIGN_OR_RETURN(HostPort bound, ParseHostPort(options_.address, /*any_port=*/true));
  BW_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(bound));
  in_port_t port = 0;
  absl::Status error;
  for (addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    if (port != 0) PortOf(address->ai_addr) = port;
    absl::StatusOr<UniqueFd> socket = Listen(options_.address, *address);
    // A name may have an address of a kind that this machine has switched off.
    if (!socket.ok() && absl::IsAlreadyExists(socket.status())) return socket.status();
    error.Update(socket.status());
    if (!socket.ok()) continue;
    sockets_.push_back(*std::move(socket));
    port = PortOf(address->ai_addr);
  }
  if (sockets_.empty()) return error;
  bound.port = ntohs(port);
  options_.address = bound.ToString();
  return absl::OkStatus();
}

void TcpListener::Run(Handler handler) {
  thread_ = std::thread([this, handler = std::move(handler)] { AcceptUntilStopped(handler); });
}

void TcpListener::Stop() {
  if (thread_.joinable()) {
    (void)eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  sockets_.clear();
}

void TcpListener::AcceptUntilStopped(const Handler& handler) {
  std::vector<pollfd> entries = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  for (const UniqueFd& socket : sockets_)
    entries.push_back({.fd = socket.get(), .events = POLLIN, .revents = 0});
  while (true) {
    if (poll(entries.data(), entries.size(), -1) < 0) continue;  // a signal
    if (entries[0].revents != 0) return;
    bool pause = false;
    for (size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].revents != 0 && !AcceptOne(entries[i].fd, handler)) pause = true;
    }
    if (pause) (void)poll(entries.data(), 1, kPauseMs);
  }
}

bool TcpListener::AcceptOne(int listener, const Handler& handler) {
  UniqueFd connection(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!connection.valid()) {
    if (!OutOfResources(errno)) return true;  // the connection is gone already
    const std::string reason = std::strerror(errno);
    if (const auto more = pause_lines_.Admit()) {
      LogWarning(options_.name, " who connect to ", options_.address, " must wait a moment: ", reason,
                 AndLikeIt(*more));
    }
    ++pauses_;
    return false;
  }
  UniqueFd placed(fcntl(connection.get(), F_DUPFD_CLOEXEC, options_.descriptors.first));
  if (!placed.valid() || placed.get() >= options_.descriptors.end) {
    if (const auto more = refusal_lines_.Admit()) {
      LogWarning(options_.address, " refuses a connection: ", options_.name, " may have ",
                 options_.descriptors.size(), " at once, by the limit of open files (ulimit -n)",
                 AndLikeIt(*more));
    }
    return true;
  }
  const int on = 1;
  (void)setsockopt(placed.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  handler(listener, std::move(placed));
  return true;
}

}  // namespace bellwether
