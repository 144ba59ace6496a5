#pragma once

#include <cstdint>

#include "common/sampling_options.h"
#include "common/step.h"

namespace bellwether {

// Bytes that the parts of an encoded Step take at most, so that whoever puts a step together keeps it below
// the limit on messages without encoding it. Whole numbers are varints of 7 bits a byte, a field has a tag of
// one byte, a message in a message a length of up to 5; proto/step_codec_test.cc compares with the real
// encoding.

// Token ids stay below 2^21 (kVocabMax), ids of blocks below 2^28.
inline constexpr int64_t kTokenBytesMax = 3;
inline constexpr int64_t kBlockBytesMax = 4;

// The message around: lengths, epoch, step.
inline constexpr int64_t kStepFixedBytesMax = 64;

// An entry but its new tokens and blocks.
inline constexpr int64_t kEntryFixedBytesMax = 64;

// What a sequence admitted earlier adds: an entry with one new token and one new block, and that it is
// retired.
inline constexpr int64_t kRunningSequenceBytesMax =
    kEntryFixedBytesMax + kTokenBytesMax + kBlockBytesMax + 11;

// An admission with so many tokens in all, and its first entry, which brings the blocks for all of them.
inline int64_t AdmissionBytesMax(int64_t tokens, const SamplingOptions& sampling) {
  constexpr int64_t kFixed = 192;
  constexpr int64_t kBiasBytes = kTokenBytesMax + sizeof(float);
  const int64_t blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const auto ending = static_cast<int64_t>(sampling.ending_tokens.size());
  const auto bias = static_cast<int64_t>(sampling.logit_bias.size());
  return kFixed + kEntryFixedBytesMax + (tokens + ending) * kTokenBytesMax + blocks * kBlockBytesMax +
         bias * kBiasBytes;
}

// What is left of a step of `step_bytes` for admissions if `sequences` run.
inline constexpr int64_t AdmissionsBytesMax(int64_t step_bytes, int64_t sequences) {
  return step_bytes - kStepFixedBytesMax - sequences * kRunningSequenceBytesMax;
}

}  // namespace bellwether
