#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

// What a GPU's runtime refuses, with what to do about it: one line for whoever runs a worker.

namespace bellwether::gpu {

// Beside the errors that CUDA has a name for.
inline constexpr absl::string_view kNoDriver = "no driver";      // CUDA calls that a driver too old
inline constexpr absl::string_view kPinnedMemory = "no pinned";  // no host memory that copies are fast with

// `error` is CUDA's name of it ("cudaErrorNoDevice") or one of ours, `text` what CUDA says, `what` who and
// where. Unavailable: no GPU can be used here as things are; ResourceExhausted: memory; FailedPrecondition:
// not with this card; Internal: all else, also where the card is lost for this process.
absl::Status GpuError(absl::string_view what, absl::string_view error, absl::string_view text);

struct GpuAdvice {
  absl::string_view error;
  absl::StatusCode code;
  absl::string_view advice;
};
// All that is advised.
absl::Span<const GpuAdvice> GpuAdvices();

}  // namespace bellwether::gpu
