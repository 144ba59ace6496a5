#include "worker/link/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

absl::Status SystemError(std::string_view what) {
  return absl::UnavailableError(absl::StrCat(std::string(what), ": ", std::strerror(errno)));
}

struct Address {
  sockaddr_un address{};
  socklen_t length = 0;
};

absl::StatusOr<Address> AbstractAddress(std::string_view name) {
  Address result;
  if (name.empty() || name.size() + 1 > sizeof(result.address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a Unix socket name has 1 to ", sizeof(result.address.sun_path) - 1, " bytes, not ", name.size()));
  }
  result.address.sun_family = AF_UNIX;
  std::memcpy(result.address.sun_path + 1, name.data(), name.size());
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return result;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return SystemError("socket");
  return fd;
}

int PollTimeout(absl::Duration limit) {
  return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(limit), 0, 1 << 30));
}

}  // namespace

absl::StatusOr<UniqueFd> ListenUnix(std::string_view name) {
  BW_ASSIGN_OR_RETURN(const Address address, AbstractAddress(name));
  BW_ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.address), address.length) != 0) {
    return SystemError(absl::StrCat("bind the Unix socket ", std::string(name)));
  }
  if (listen(fd.get(), SOMAXCONN) != 0) return SystemError("listen on a Unix socket");
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(std::string_view name) {
  BW_ASSIGN_OR_RETURN(const Address address, AbstractAddress(name));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return SystemError("socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.address), address.length) != 0) {
    return SystemError(absl::StrCat("connect to the Unix socket ", std::string(name)));
  }
  return fd;
}

absl::StatusOr<UniqueFd> AcceptUnix(int listener) {
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd.valid()) return SystemError("accept on a Unix socket");
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return SystemError("SO_PEERCRED");
  if (peer.uid != geteuid() && peer.uid != 0) {
    return absl::PermissionDeniedError(absl::StrCat("process ", peer.pid, " belongs to user ", peer.uid));
  }
  return fd;
}

absl::Status SendPacket(int socket, std::string_view bytes, int fd) {
  iovec data{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return SystemError("send on a Unix socket");
  return absl::OkStatus();
}

absl::StatusOr<UnixPacket> ReceivePacket(int socket, absl::Duration limit) {
  if (!WaitReadable(socket, limit)) {
    return absl::DeadlineExceededError(absl::StrCat("nothing received within ", absl::FormatDuration(limit)));
  }
  UnixPacket packet;
  packet.bytes.resize(kUnixPacketBytesMax);
  iovec data{packet.bytes.data(), packet.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (received < 0) return SystemError("receive on a Unix socket");
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    if (header->cmsg_len != CMSG_LEN(sizeof(int))) continue;  // the kernel closed what did not fit
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(int));
    packet.fd = UniqueFd(fd);
  }
  if (received == 0) return absl::UnavailableError("the other side has closed the Unix socket");
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
    return absl::DataLossError("a packet larger than any of ours");
  packet.bytes.resize(received);
  return packet;
}

bool WaitReadable(int socket, absl::Duration limit) {
  pollfd entry{.fd = socket, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, PollTimeout(limit)) > 0;
}

bool HungUp(int socket) {
  pollfd entry{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace bellwether
