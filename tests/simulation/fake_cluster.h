#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"
#include "common/step.h"

namespace bellwether {

// A model that is a pure function, so that every answer is known beforehand.
struct FakeModel {
  static constexpr TokenId kVocab = 24;
  // State after the tokens so far: what a real model keeps in its KV cache.
  static uint64_t Absorb(uint64_t state, TokenId token);
  static uint64_t Absorb(const std::vector<TokenId>& tokens);
  // -1, seldom: no token could be sampled.
  static TokenId Sample(uint64_t state, uint64_t seed, int32_t choice);
  static float Score(uint64_t state, TokenId next);
};

// All workers of one epoch: runs steps in order and refuses whatever a real worker could not carry out. Every
// slot of the KV cache holds the model's state after its position, so a wrong block table, a block written by
// two sequences or a position left out cannot stay unnoticed.
class FakeCluster {
 public:
  struct Limits {
    int32_t kv_blocks = 0;
    int32_t step_tokens_max = 0;
    int32_t sequences_max = 0;
    int64_t step_bytes_max = 0;  // of the encoded step
    int32_t stages = 1;
  };
  FakeCluster(Epoch epoch, Limits limits);

  // InvalidArgument, saying what, if the step breaks the contract of common/step.h.
  absl::Status Run(const Step& step, StepResult* result);

  // Blocks that a sequence used although another one had written them.
  int64_t blocks_shared() const { return blocks_shared_; }
  int64_t readmissions() const { return readmissions_; }

 private:
  struct Slot {
    uint64_t state = 0;
    SequenceId writer;
    StepId step;
  };
  struct Sequence {
    Admission known;
    std::vector<KvBlockId> table;
    int32_t next_position = -1;  // -1: not yet in a step
    uint64_t state = 0;          // after next_position - 1
  };

  absl::Status Retire(const Step& step);
  absl::Status Admit(const Step& step);
  absl::Status RunEntry(const Step& step, const StepEntry& entry, StepResult* result);
  absl::Status ExtendTable(const StepEntry& entry, Sequence* sequence);
  absl::Status CheckCache(StepId step, SequenceId id, const Sequence& sequence, int32_t positions);
  absl::Status Write(StepId step, SequenceId id, Sequence* sequence, int32_t position);

  Epoch epoch_;
  Limits limits_;
  StepId last_step_;
  std::vector<std::vector<Slot>> cache_;  // [block][position in it]
  std::map<SequenceId, Sequence> sequences_;
  std::vector<int32_t> holders_;  // by block: sequences whose table has it
  std::set<SequenceId> seen_;
  int64_t blocks_shared_ = 0;
  int64_t readmissions_ = 0;
};

}  // namespace bellwether
