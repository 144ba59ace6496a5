#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/unique_fd.h"

namespace bellwether {

// Sockets in Linux's abstract namespace: no file to clean up, and a name that opens proves that both
// processes are on one host. They carry packets, kept apart and in order. Names are without the leading zero
// byte.
absl::StatusOr<UniqueFd> ListenUnix(std::string_view name);
absl::StatusOr<UniqueFd> ConnectUnix(std::string_view name);  // never waits; Unavailable if nobody listens
absl::StatusOr<UniqueFd> AcceptUnix(int listener);  // refuses processes of other users than ours and root

inline constexpr size_t kUnixPacketBytesMax = 4096;
struct UnixPacket {
  std::string bytes;
  UniqueFd fd;  // at most one travels with a packet
};
// Never waits: the packets are small and few. `fd` -1: none.
absl::Status SendPacket(int socket, std::string_view bytes, int fd = -1);
// Waits up to `limit`. Unavailable if the other side has closed.
absl::StatusOr<UnixPacket> ReceivePacket(int socket, absl::Duration limit);

// Whether the socket has something to read (or has been closed) within `limit`.
bool WaitReadable(int socket, absl::Duration limit);
// True once the other side's last descriptor is closed: its process has ended, however it did.
bool HungUp(int socket);

}  // namespace bellwether
