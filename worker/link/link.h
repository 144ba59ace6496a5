#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/ids.h"

namespace bellwether {

// What a message is for. Part of every frame, so that two workers that disagree find out at once.
enum class MessageKind : uint8_t {
  kResidual = 1,       // stage to stage: fp32 rows of the residual stream
  kReduceRoots = 2,    // between ranks: subtree roots of a row-parallel product
  kReduceResult = 3,   // between ranks: finished sums
  kEmbeddingRows = 4,  // between ranks: embedding rows, copied from their owner
  kLogits = 5,         // to rank 0 of the last stage
  kNcclVersions = 6,   // before the first step: who has which NCCL
  kNcclId = 7,         // and the id of the communicator
};

// Names one message. Sender and receiver compute it alone from the step they run; a difference is an error.
struct MessageTag {
  Epoch epoch;
  StepId step;
  MessageKind kind = MessageKind::kResidual;
  int32_t stage = 0;   // of the sender
  int32_t rank = 0;    // of the sender, in its stage
  int32_t layer = -1;  // where it says something
  int32_t rows = 0, cols = 0;
  friend bool operator==(const MessageTag&, const MessageTag&) = default;
};
std::string Describe(const MessageTag& tag);

// One peer, both directions, each a bounded FIFO. A link belongs to one epoch and to the executor thread, but
// for Abort. After an error a link is of no use any more.
//
// Send may return before the peer has the data, and waits while the FIFO is full. A message larger than the
// FIFO is split into frames inside; two peers that both Send more than kLinkFifoBytes before they Receive
// would wait for each other: algorithms must interleave (host_group.h does).
inline constexpr int64_t kLinkFifoBytes = 256 << 10;
inline constexpr int64_t kFrameBytesMax = 1 << 20;

class Link {
 public:
  virtual ~Link() = default;

  // data.size() == tag.rows * tag.cols for whole messages; collectives may send parts of one.
  // DeadlineExceeded after the wait limit, Unavailable if the peer is gone, DataLoss if the tags differ; all
  // name the peer, the tag and how long it took.
  virtual absl::Status Send(const MessageTag& tag, absl::Span<const float> data) = 0;
  virtual absl::Status Receive(const MessageTag& tag, absl::Span<float> data) = 0;

  // Of a wait in which nothing moves, from the next one on.
  virtual void SetWaitLimit(absl::Duration limit) = 0;

  // From any thread: Send and Receive fail with `reason` from now on, waiting ones included.
  virtual void Abort(const absl::Status& reason) = 0;

  // "worker 3 (stage 1, rank 0) by shared memory"
  virtual std::string peer() const = 0;
};

}  // namespace bellwether
