#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/defaults.h"
#include "common/ids.h"
#include "common/step.h"
#include "common/step_bytes.h"
#include "coordinator/kv_ledger.h"

namespace bellwether {

// Decides what each step computes: continuous batching, chunked prefill, several steps in flight, preemption.
// Pure and single-threaded; knows sequences and KV blocks, nothing of requests, text or time.
//
// Order. SequenceIds are given in order of arrival, and everything is done in that order. A step holds first
// the decoding sequences (with P stages at most a P-th of them, so that P disjoint microbatches fill the
// stages), then chunks of prompts, then sequences newly admitted, up to the token budget. With P > 1 stages a
// step takes at most a 2P-th of the budget of prompts (but a KV block): one prompt becomes a train of chunks
// that keeps all stages at work. A prompt of one budget takes (2P + P - 1) / 2P of the time of a stage then.
//
// KV blocks. A sequence is admitted when the blocks for all tokens it has are available at once, with one
// block to spare for each running sequence; so a prefill never waits for blocks half way. What it begins with
// may be in full blocks that are known (KvLedger), of another sequence or of an earlier one: these it shares,
// and computes what follows; while another computes what it begins with, it waits. A decoding sequence
// that needs a block and finds none preempts the latest sequence that runs (perhaps itself): its blocks are
// freed, it waits in its place by arrival, and is admitted again with all its tokens. A token comes back
// between any two preemptions by the same sequence, so everything ends.
//
// Bytes. Every worker gets all tokens of the sequences that a step admits. What would make the step's message
// too long waits for the next step.
//
// Why freed blocks may be given away at once, even if a step in flight uses them: workers run steps strictly
// in order, and the next holder appears in a later step. For the same reason a sequence may be preempted or
// removed while a step of it is in flight. The result of a preempted one still counts (it is not admitted
// again before that result has come, so no token is computed twice); results of removed ones are dropped.
class Scheduler {
 public:
  struct Options {
    int32_t step_tokens_max = 512;
    int32_t sequences_max = 256;                       // running at once
    int64_t step_bytes_max = kControlMessageBytesMax;  // of an encoded step, for the messages' sake
    // Blocks outlive the sequences that filled them; else the choices of one prompt share, and nobody else.
    bool prefix_cache = true;
  };
  explicit Scheduler(Options options);

  // A new epoch: steps count from 1, the cache is empty. Sequences stay, waiting; results due are forgotten.
  // `step_tokens`: of its steps, at most, where that is less than Options::step_tokens_max; 0: as many.
  void Start(Epoch epoch, int32_t kv_blocks, int32_t stages, int32_t step_tokens = 0);
  // The epoch is over: no steps until the next Start.
  void Stop();

  // Bytes of a step that are there for admissions; a sequence that would need more is never admitted, so ask
  // AdmissionBytesMax for all tokens it may ever have before it is added.
  int64_t admissions_bytes_max() const {
    return AdmissionsBytesMax(options_.step_bytes_max, options_.sequences_max);
  }

  // A new sequence; ids ascend. `group` names the sequences that have the same prompt: one of them computes
  // it and the others wait for its full blocks. Known blocks are shared among sequences of the same
  // `sharers`.
  void Add(uint64_t group, Admission sequence, uint64_t sharers = 0);
  // The sequence is over: its blocks are free. Must be here.
  void Remove(SequenceId id);
  // The engine takes the token that the last result brought and goes on.
  void Append(SequenceId id, TokenId token);

  struct Next {
    std::optional<Step> step;  // none: nothing to compute, or enough is in flight
    std::vector<SequenceId>
        too_large;  // need more blocks than there are; must be removed before the next call
  };
  Next NextStep();

  // One sequence's part of a finished step.
  struct Output {
    SequenceId sequence;
    int32_t position = 0;  // of the entry
    size_t index = 0;      // in StepResult::outputs
  };
  // Matches a result of this epoch with the oldest step in flight. Only sequences that are still here are
  // returned. Internal, naming what differs, if it does not fit.
  absl::StatusOr<std::vector<Output>> Finish(const StepResult& result);

  // All tokens of a sequence: prompt and output.
  const std::vector<TokenId>& tokens(SequenceId id) const { return sequences_.at(id.value).known.tokens; }
  int32_t blocks_needed(SequenceId id) const;
  const KvLedger& ledger() const { return ledger_; }
  int32_t sequences() const { return static_cast<int32_t>(sequences_.size()); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  bool runs(SequenceId id) const { return running_.contains(id); }
  int32_t steps_in_flight() const { return static_cast<int32_t>(in_flight_.size()); }
  uint64_t preemptions() const { return preemptions_; }
  // Over all admissions: tokens that sequences had, and those of them that were in known blocks.
  uint64_t tokens_admitted() const { return tokens_admitted_; }
  uint64_t tokens_shared() const { return tokens_shared_; }
  // The same of a sequence's first admission; 0 before it.
  int32_t tokens_shared(SequenceId id) const { return sequences_.at(id.value).shared_at_first.value_or(0); }

 private:
  enum class Phase { kWaiting, kPrefill, kDecode };
  struct Sequence {
    uint64_t group = 0;
    PrefixId empty_prefix = 0;
    Admission known;  // with all tokens so far
    Phase phase = Phase::kWaiting;
    int32_t prefill_end = 0;    // positions to compute before the phase is over
    int32_t next_position = 0;  // first one not yet put in a step
    int32_t tokens_sent = 0;    // known to the workers
    size_t blocks_sent = 0;     // of `blocks`
    int32_t outputs_due = 0;    // entries in flight that sample or score
    StepId prompt_step;         // that completed the prompt's full blocks; 0 = none yet
    std::vector<KvBlockId> blocks;
    size_t blocks_known = 0;  // of `blocks`: the first ones, full, whose content the ledger was told
    PrefixId prefix = 0;      // that they make
    std::optional<int32_t> shared_at_first;  // tokens
  };
  struct ExpectedOutput {
    SequenceId sequence;
    int32_t position = 0;
    int32_t count = 0;
    bool sample = false;
    bool best = false;  // scores come with the most likely tokens
  };
  struct InFlight {
    StepId id;
    std::vector<ExpectedOutput> outputs;
  };
  // The step being put together.
  struct Draft {
    Step step;
    InFlight in_flight;
    int32_t budget = 0;           // tokens
    int64_t admission_bytes = 0;  // that are left
  };
  enum class Admitted { kYes, kNotNow, kTooLarge };
  // Full blocks that hold what a sequence begins with.
  struct Shared {
    std::vector<KvBlockId> blocks;
    PrefixId prefix = 0;
    int32_t kept = 0;    // of them, without a holder
    bool grows = false;  // the step being put together writes the next one
    int32_t positions() const { return static_cast<int32_t>(blocks.size()) * kKvBlockTokens; }
  };

  int32_t PrefillTokensMax() const;
  void ScheduleDecodes(Draft* draft, std::vector<SequenceId>* too_large);
  void SchedulePrefills(Draft* draft);
  void AdmitWaiting(Draft* draft, std::vector<SequenceId>* too_large);
  Admitted Admit(SequenceId id, Draft* draft);
  void AddEntry(SequenceId id, Sequence* sequence, int32_t count, Draft* draft);
  bool GrowOrPreempt(SequenceId id, Sequence* sequence);
  void Leave(SequenceId id, Sequence* sequence);
  Shared FindShared(const Sequence& sequence, StepId step) const;
  void RememberFullBlocks(Sequence* sequence, StepId step);
  static int32_t PromptBlocks(const Sequence& sequence);
  bool SiblingComputesPrompt(SequenceId id, const Sequence& sequence, StepId step) const;
  static int32_t PositionsNeeded(const Sequence& sequence);

  const Options options_;
  Epoch epoch_;
  StepId last_step_;
  int32_t stages_ = 0;       // 0 = stopped
  int32_t step_tokens_ = 0;  // of a step, at most
  KvLedger ledger_{0};
  // Keyed by SequenceId: order of arrival.
  absl::flat_hash_map<uint64_t, Sequence> sequences_;
  absl::flat_hash_map<uint64_t, std::set<SequenceId>> groups_;
  std::set<SequenceId> waiting_;
  std::set<SequenceId> running_;
  std::set<SequenceId> prefilling_;  // running, with positions left to put in a step
  std::set<SequenceId> ready_;       // decoding, with a token that has not been put in a step
  int32_t decoding_ = 0;             // sampling sequences in phase kDecode
  std::vector<SequenceId> retired_;  // to be announced with the next step
  std::deque<InFlight> in_flight_;
  uint64_t preemptions_ = 0;
  uint64_t tokens_admitted_ = 0;
  uint64_t tokens_shared_ = 0;
};

}  // namespace bellwether
