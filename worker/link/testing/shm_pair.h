#pragma once

#include <sys/socket.h>

#include <memory>
#include <utility>

#include "common/check.h"
#include "worker/link/shm_link.h"

namespace bellwether {

// The two ends of a shared memory link, both in this process but through mappings of their own; called
// "first" and "second".
inline std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> MakeShmPair(absl::Duration wait_limit,
                                                                           int spin_pauses) {
  const ShmIdentity identity{.epoch = {3}, .creator = 0, .opener = 1};
  absl::StatusOr<ShmSegment::Created> created = ShmSegment::Create(identity);
  BW_CHECK(created.ok());
  absl::StatusOr<ShmSegment> opened = ShmSegment::Open(created->fd, identity);
  BW_CHECK(opened.ok());
  int sockets[2];
  BW_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
  return {MakeShmLink(std::move(created->segment), UniqueFd(sockets[0]), {"second", wait_limit, spin_pauses}),
          MakeShmLink(*std::move(opened), UniqueFd(sockets[1]), {"first", wait_limit, spin_pauses})};
}

}  // namespace bellwether
