#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/link/link.h"

namespace bellwether {

// What every kind of link puts before the floats of a message, and the errors they all report in the same
// words.
struct MessageHeader {
  MessageTag tag;
  int64_t floats = 0;  // of the whole message
};

// The header that Receive(tag, floats) expects against the one that came: DataLoss naming both.
absl::Status CheckHeader(const MessageHeader& expected, const MessageHeader& received, std::string_view peer);

enum class Direction : uint8_t { kSend, kReceive };

// "sending <tag> to <peer>" or "receiving <tag> from <peer>"
std::string DescribeTransfer(Direction direction, const MessageTag& tag, std::string_view peer);

// DeadlineExceeded: nothing moved for `waited`.
absl::Status WaitedTooLong(Direction direction, const MessageTag& tag, std::string_view peer,
                           absl::Duration waited);
// Unavailable: the peer's process is gone or has left the epoch.
absl::Status PeerGone(Direction direction, const MessageTag& tag, std::string_view peer,
                      absl::Duration waited);

}  // namespace bellwether
