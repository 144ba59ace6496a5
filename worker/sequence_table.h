#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/defaults.h"
#include "common/step.h"

namespace bellwether {

// A sequence as every worker knows it.
struct SequenceState {
  Admission admission;            // its tokens grow as steps bring new ones
  std::vector<KvBlockId> blocks;  // block table
  const std::vector<TokenId>& tokens() const { return admission.tokens; }
};

// The sequences of one epoch. Follows Steps to the letter and refuses one that contradicts what came before:
// that is an error of the coordinator, never a guess of ours.
class SequenceTable {
 public:
  struct Limits {
    int32_t vocab = 0;
    int32_t kv_blocks = 0;
    int32_t context_tokens = 0;
    int32_t step_tokens = 0;
    int32_t sequences = kSequencesMax;
  };
  explicit SequenceTable(const Limits& limits) : limits_(limits) {}

  // Applies retirements, admissions, new tokens and new blocks. InvalidArgument names the step and the
  // sequence.
  absl::Status Apply(const Step& step);

  const SequenceState& at(SequenceId id) const;

 private:
  absl::Status Admit(const Admission& admission);
  absl::Status Extend(const StepEntry& entry);

  const Limits limits_;
  absl::flat_hash_map<SequenceId, SequenceState> sequences_;
};

}  // namespace bellwether
