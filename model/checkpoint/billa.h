#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/contents.h"

namespace bellwether {

// BiLLa's published embedding is the sum of its own and Meta's. From then on the model's embedding reads as
// what is left without Meta's, rounded to fp16 as the project's own script leaves it. `base` is where Meta's
// stands: consolidated.00.pth, a file or directory of Hugging Face's form.
//
// InvalidArgument: the file's note says that it was subtracted; no fp32 embedding (the script leaves fp16, so
// it has been subtracted); one of another width; or, unless `force`, one from which the base's has been
// subtracted already, as the numbers tell.
absl::Status SubtractBase(const std::string& base, bool force, CheckpointContents& contents);

// For models that are opened without a base. A LLaMA whose embedding is fp32 beside layers of fp16 is such a
// sum, which serves as garbage: InvalidArgument where the model's name has the word BiLLa, else a warning.
absl::Status CheckNeedsNoBase(CheckpointContents& contents);

// The sum of the embedding, in double precision.
absl::StatusOr<double> EmbeddingSum(const StoredTensor& embedding);
// What the project publishes of it for BiLLa-7B-SFT, as torch sums in fp32, and how far another order of
// summation may be off it.
inline constexpr double kBillaSftSum = -3756.942626953125;
inline constexpr double kBillaSftTolerance = 0.5;

}  // namespace bellwether
