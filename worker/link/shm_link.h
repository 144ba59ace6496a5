#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "worker/link/link.h"
#include "worker/link/shm_segment.h"
#include "worker/link/unix_socket.h"

namespace bellwether {

struct ShmLinkOptions {
  std::string peer;                               // "worker 3 (stage 1, rank 0)"
  absl::Duration wait_limit = absl::Seconds(30);  // for a wait in which nothing moves
  // A wait spins this often, then sleeps in the kernel. A pause is 10 to 50 ns.
  int spin_pauses = 1000;
};

// A link to a process on this host. `socket` is connected to the peer and carries nothing more: it hangs up
// when the peer's process ends, which a waiting link notices within a tenth of a second.
std::unique_ptr<Link> MakeShmLink(ShmSegment segment, UniqueFd socket, ShmLinkOptions options);

}  // namespace bellwether
