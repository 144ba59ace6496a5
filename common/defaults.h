#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace bellwether {

// Ports, sizes and times that hold unless told otherwise, and the limits on what peers may ask for. In one
// place so that the programs, the tool and the documentation agree.

// Addresses. Loopback unless told otherwise: no port asks who is there unless it is told how.
inline constexpr char kDefaultClientAddress[] = "127.0.0.1:7400";
inline constexpr char kDefaultWorkerAddress[] = "127.0.0.1:7401";
inline constexpr char kDefaultHttpAddress[] = "127.0.0.1:7480";

// Version of cluster.proto. Programs of different versions refuse each other.
inline constexpr int32_t kClusterProtocolVersion = 1;

// Messages.
inline constexpr int64_t kControlMessageBytesMax = 4 << 20;
inline constexpr int64_t kClientMessageBytesMax = 16
                                                  << 20;  // a text of 4 MiB, and token ids of a long context

// Cluster health (docs/architecture.md).
inline constexpr absl::Duration kHeartbeatInterval = absl::Milliseconds(500);
inline constexpr absl::Duration kHeartbeatTimeout = absl::Seconds(4);
inline constexpr absl::Duration kDefaultStepDeadline = absl::Seconds(30);
// A plan whose steps may take longer is refused, and so is an assignment.
inline constexpr absl::Duration kStepDeadlineMax = absl::Hours(24);
inline constexpr absl::Duration kLoadTimeout = absl::Seconds(180);  // without any progress
inline constexpr absl::Duration kRejoinDelayFirst = absl::Milliseconds(100);
inline constexpr absl::Duration kRejoinDelayMax = absl::Seconds(3);

// What of a GPU's free memory a plan takes.
inline constexpr double kDefaultDeviceMemoryFraction = 0.9;

// Serving.
inline constexpr int32_t kDefaultContextTokens = 4096;  // or what the model can, if less
inline constexpr int32_t kDefaultStepTokens = 512;
inline constexpr int32_t kDefaultSequences = 256;
inline constexpr int32_t kDefaultPlanForBatch = 16;
inline constexpr int32_t kDefaultQueuedRequests = 256;
inline constexpr int32_t kDefaultMaxTokens = 4096;
inline constexpr absl::Duration kDefaultDrain = absl::Seconds(30);
inline constexpr absl::Duration kDefaultReplaceWait = absl::Seconds(30);
// A pod comes back and loads within minutes; clients that have less patience give deadlines.
inline constexpr absl::Duration kDefaultResumeWait = absl::Minutes(5);

// What a request may ask for.
inline constexpr int32_t kStopStringsMax = 16;
inline constexpr int64_t kStopStringBytesMax = 1024;
inline constexpr int32_t kStopTokenIdsMax = 64;
inline constexpr int32_t kLogitBiasMax = 4096;
inline constexpr int32_t kLogprobsMax = 20;
inline constexpr int32_t kChoicesMax = 16;
inline constexpr int32_t kChatMessagesMax = 4096;

// What a cluster may look like.
inline constexpr int32_t kWorkersMax = 1024;
inline constexpr int32_t kLocalWorkersMax = 64;  // that the tool starts on one machine
inline constexpr int32_t kContextTokensMax = 1 << 24;
inline constexpr int32_t kWorkerThreadsMax = 1024;
inline constexpr int32_t kSequencesMax = 4096;  // that run at once

}  // namespace bellwether
