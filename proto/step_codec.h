#pragma once

#include "absl/status/statusor.h"
#include "common/step.h"
#include "proto/bellwether/v1/cluster.pb.h"

namespace bellwether {

// Steps and their results between our structs and the wire. Decoding checks counts and ranges, so that what
// comes out can be indexed with; InvalidArgument names the field. Encoding checks nothing: our own structs
// are right.

void Encode(const Step& step, v1::Step* out);
absl::StatusOr<Step> Decode(const v1::Step& message);

void Encode(const StepResult& result, v1::StepResult* out);
absl::StatusOr<StepResult> Decode(const v1::StepResult& message);

// Limits on one message. A step's entries are limited by the sequences a coordinator runs at once, tokens and
// blocks by the longest context there is.
inline constexpr int kStepEntriesMax = 1 << 16;
inline constexpr int kSequenceTokensMax = 1 << 24;
inline constexpr int kTopLogprobsMax = 64;

}  // namespace bellwether
