#pragma once

#include <compare>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace bellwether {

// An integer that cannot be mistaken for another kind of integer.
template <typename Tag, typename Value>
struct StrongId {
  Value value{};
  friend auto operator<=>(const StrongId&, const StrongId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value);
  }
};

// Row of the embedding. Signed 32 bits, as every tokenizer file has it; -1 means "none".
using TokenId = int32_t;

// One request of a client, in the coordinator only.
using RequestId = StrongId<struct RequestIdTag, uint64_t>;
// One sequence of tokens (a choice of a request). Never reused within a coordinator's life.
using SequenceId = StrongId<struct SequenceIdTag, uint64_t>;
// Number of the layout in force. Messages of another epoch are refused.
using Epoch = StrongId<struct EpochTag, uint64_t>;
// Position of a step in its epoch: 1, 2, 3 ... A worker runs steps in this order and skips none.
using StepId = StrongId<struct StepIdTag, uint64_t>;
// Index of a block of the KV cache, the same on every worker of an epoch.
using KvBlockId = int32_t;
// Given by the coordinator when a worker joins.
using WorkerId = StrongId<struct WorkerIdTag, uint64_t>;

}  // namespace bellwether
