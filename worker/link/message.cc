#include "worker/link/message.h"

#include "absl/strings/str_cat.h"

namespace bellwether {

absl::Status CheckHeader(const MessageHeader& expected, const MessageHeader& received,
                         std::string_view peer) {
  if (expected.tag == received.tag && expected.floats == received.floats) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("expected ", Describe(expected.tag), ", ", expected.floats,
                                          " floats, but ", std::string(peer), " sent ",
                                          Describe(received.tag), ", ", received.floats, " floats"));
}

std::string DescribeTransfer(Direction direction, const MessageTag& tag, std::string_view peer) {
  const bool send = direction == Direction::kSend;
  return absl::StrCat(send ? "sending " : "receiving ", Describe(tag), send ? " to " : " from ",
                      std::string(peer));
}

absl::Status WaitedTooLong(Direction direction, const MessageTag& tag, std::string_view peer,
                           absl::Duration waited) {
  return absl::DeadlineExceededError(absl::StrCat(DescribeTransfer(direction, tag, peer),
                                                  ": nothing moved for ", absl::FormatDuration(waited)));
}

absl::Status PeerGone(Direction direction, const MessageTag& tag, std::string_view peer,
                      absl::Duration waited) {
  return absl::UnavailableError(absl::StrCat(DescribeTransfer(direction, tag, peer),
                                             ": the peer has closed the link, after ",
                                             absl::FormatDuration(waited)));
}

}  // namespace bellwether
