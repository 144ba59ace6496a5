#include "coordinator/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/check.h"

namespace bellwether {

Scheduler::Scheduler(Options options) : options_(options) {
  BW_CHECK_GE(options_.step_tokens_max, 1);
  BW_CHECK_GE(options_.sequences_max, 1);
}

void Scheduler::Start(Epoch epoch, int32_t kv_blocks, int32_t stages, int32_t step_tokens) {
  BW_CHECK_GE(kv_blocks, 0);
  BW_CHECK_GE(stages, 1);
  BW_CHECK_GE(step_tokens, 0);
  Stop();
  epoch_ = epoch;
  last_step_ = StepId{0};
  stages_ = stages;
  step_tokens_ =
      step_tokens == 0 ? options_.step_tokens_max : std::min(step_tokens, options_.step_tokens_max);
  ledger_ = KvLedger(kv_blocks, options_.prefix_cache);
}

void Scheduler::Stop() {
  for (auto& [id, sequence] : sequences_) {
    if (sequence.phase != Phase::kWaiting) Leave(SequenceId{id}, &sequence);
    sequence.outputs_due = 0;
    waiting_.insert(SequenceId{id});
  }
  BW_CHECK_EQ(ledger_.used(), 0);
  ledger_ = KvLedger(0);
  retired_.clear();
  in_flight_.clear();
  stages_ = 0;
}

void Scheduler::Add(uint64_t group, Admission sequence, uint64_t sharers) {
  const SequenceId id = sequence.sequence;
  BW_CHECK(!sequence.tokens.empty());
  const PrefixId empty_prefix = EmptyPrefix(options_.prefix_cache ? sharers : group);
  const bool added = sequences_.emplace(id.value, Sequence{group, empty_prefix, std::move(sequence)}).second;
  BW_CHECK(added);
  groups_[group].insert(id);
  waiting_.insert(id);
}

void Scheduler::Remove(SequenceId id) {
  const auto at = sequences_.find(id.value);
  BW_CHECK(at != sequences_.end());
  if (at->second.phase != Phase::kWaiting) Leave(id, &at->second);
  waiting_.erase(id);
  const auto group = groups_.find(at->second.group);
  group->second.erase(id);
  if (group->second.empty()) groups_.erase(group);
  sequences_.erase(at);
}

void Scheduler::Append(SequenceId id, TokenId token) {
  Sequence& sequence = sequences_.at(id.value);
  BW_CHECK(!sequence.known.score);
  sequence.known.tokens.push_back(token);
  if (sequence.phase == Phase::kDecode) ready_.insert(id);
}

int32_t Scheduler::PositionsNeeded(const Sequence& sequence) {
  // The last token of a scored text predicts nothing that is asked for.
  return static_cast<int32_t>(sequence.known.tokens.size()) - (sequence.known.score ? 1 : 0);
}

int32_t Scheduler::blocks_needed(SequenceId id) const {
  return KvBlocksFor(PositionsNeeded(sequences_.at(id.value)));
}

Scheduler::Next Scheduler::NextStep() {
  Next next;
  if (stages_ == 0 || steps_in_flight() >= stages_) return next;
  Draft draft;
  draft.step.epoch = epoch_;
  draft.step.id = StepId{last_step_.value + 1};
  draft.in_flight.id = draft.step.id;
  draft.budget = step_tokens_;
  draft.admission_bytes = admissions_bytes_max();
  ScheduleDecodes(&draft, &next.too_large);
  draft.budget = std::min(draft.budget, PrefillTokensMax());
  SchedulePrefills(&draft);
  AdmitWaiting(&draft, &next.too_large);
  if (draft.step.entries.empty()) return next;
  draft.step.retired = std::exchange(retired_, {});
  last_step_ = draft.step.id;
  in_flight_.push_back(std::move(draft.in_flight));
  next.step = std::move(draft.step);
  return next;
}

int32_t Scheduler::PrefillTokensMax() const {
  if (stages_ == 1) return step_tokens_;
  return std::max(step_tokens_ / (2 * stages_), kKvBlockTokens);
}

void Scheduler::ScheduleDecodes(Draft* draft, std::vector<SequenceId>* too_large) {
  int32_t room = std::min((decoding_ + stages_ - 1) / stages_, draft->budget);
  // ready_ shrinks while it is walked: by what is put in the step and by preemption of later sequences.
  for (auto at = ready_.begin(); at != ready_.end() && room > 0;) {
    const SequenceId id = *at;
    Sequence& sequence = sequences_.at(id.value);
    if (KvBlocksFor(PositionsNeeded(sequence)) > ledger_.total()) {
      too_large->push_back(id);
    } else if (GrowOrPreempt(id, &sequence)) {
      AddEntry(id, &sequence, 1, draft);
      ready_.erase(id);
      --room;
    }
    at = ready_.upper_bound(id);
  }
}

bool Scheduler::GrowOrPreempt(SequenceId id, Sequence* sequence) {
  const int32_t missing =
      KvBlocksFor(PositionsNeeded(*sequence)) - static_cast<int32_t>(sequence->blocks.size());
  while (!ledger_.Allocate(missing, &sequence->blocks)) {
    const SequenceId victim = *running_.rbegin();
    // Not a sequence of this step: decodes are put in it in order of arrival.
    BW_CHECK(victim >= id);
    Leave(victim, &sequences_.at(victim.value));
    waiting_.insert(victim);
    ++preemptions_;
    if (victim == id) return false;
  }
  return true;
}

// Out of the running set; the workers forget it with the next step.
void Scheduler::Leave(SequenceId id, Sequence* sequence) {
  if (sequence->phase == Phase::kDecode && !sequence->known.score) --decoding_;
  sequence->phase = Phase::kWaiting;
  running_.erase(id);
  prefilling_.erase(id);
  ready_.erase(id);
  ledger_.Release(&sequence->blocks);
  retired_.push_back(id);
}

void Scheduler::SchedulePrefills(Draft* draft) {
  for (auto at = prefilling_.begin(); at != prefilling_.end() && draft->budget > 0;) {
    const SequenceId id = *at;
    Sequence& sequence = sequences_.at(id.value);
    AddEntry(id, &sequence, std::min(sequence.prefill_end - sequence.next_position, draft->budget), draft);
    at = prefilling_.upper_bound(id);
  }
}

void Scheduler::AdmitWaiting(Draft* draft, std::vector<SequenceId>* too_large) {
  for (auto at = waiting_.begin(); at != waiting_.end() && draft->budget > 0;) {
    const SequenceId id = *at;
    const Admitted admitted = Admit(id, draft);
    // Nobody overtakes, else a long prompt might wait for ever.
    if (admitted == Admitted::kNotNow) return;
    if (admitted == Admitted::kTooLarge) too_large->push_back(id);
    at = waiting_.upper_bound(id);
  }
}

Scheduler::Admitted Scheduler::Admit(SequenceId id, Draft* draft) {
  Sequence& sequence = sequences_.at(id.value);
  const int32_t positions = PositionsNeeded(sequence);
  if (KvBlocksFor(positions) > ledger_.total()) return Admitted::kTooLarge;
  if (running() >= options_.sequences_max || sequence.outputs_due > 0) return Admitted::kNotNow;

  const int64_t bytes = AdmissionBytesMax(sequence.known.tokens.size(), sequence.known.sampling);
  BW_CHECK_GE(admissions_bytes_max(), bytes);
  if (bytes > draft->admission_bytes) return Admitted::kNotNow;

  const Shared shared = FindShared(sequence, draft->step.id);
  const bool all = static_cast<int32_t>(shared.blocks.size()) >= PromptBlocks(sequence);
  if (shared.grows || (!all && SiblingComputesPrompt(id, sequence, draft->step.id))) return Admitted::kNotNow;
  const int32_t fresh = KvBlocksFor(positions) - static_cast<int32_t>(shared.blocks.size());
  if (fresh + running() > ledger_.available() - shared.kept && running() > 0) return Admitted::kNotNow;

  ledger_.Share(shared.blocks, &sequence.blocks);
  const bool allocated = ledger_.Allocate(fresh, &sequence.blocks);
  BW_CHECK(allocated);
  sequence.phase = Phase::kPrefill;
  sequence.prefill_end = positions;
  sequence.next_position = shared.positions();
  sequence.tokens_sent = static_cast<int32_t>(sequence.known.tokens.size());
  sequence.blocks_sent = 0;
  sequence.blocks_known = shared.blocks.size();
  sequence.prefix = shared.prefix;
  sequence.prompt_step = StepId{0};
  tokens_admitted_ += sequence.known.tokens.size();
  tokens_shared_ += shared.positions();
  if (!sequence.shared_at_first.has_value()) sequence.shared_at_first = shared.positions();
  waiting_.erase(id);
  running_.insert(id);
  prefilling_.insert(id);
  draft->admission_bytes -= bytes;
  draft->step.admissions.push_back(sequence.known);
  AddEntry(id, &sequence, std::min(positions - sequence.next_position, draft->budget), draft);
  return Admitted::kYes;
}

// Never the block of the last token: that position is computed for its logits. Of scored texts every position
// is. Blocks are read from the step after the one that fills them on: a step need not order its writes before
// its reads.
Scheduler::Shared Scheduler::FindShared(const Sequence& sequence, StepId step) const {
  Shared shared{.prefix = sequence.empty_prefix};
  if (sequence.known.score) return shared;
  const absl::Span<const TokenId> tokens = sequence.known.tokens;
  while (shared.positions() + kKvBlockTokens < static_cast<int64_t>(tokens.size())) {
    const auto found = ledger_.Find(shared.prefix, tokens.subspan(shared.positions(), kKvBlockTokens));
    if (!found.has_value()) break;
    shared.grows = found->step >= step;
    if (shared.grows) break;
    shared.prefix = found->prefix;
    shared.blocks.push_back(found->block);
    if (ledger_.holders(found->block) == 0) ++shared.kept;
  }
  return shared;
}

void Scheduler::RememberFullBlocks(Sequence* sequence, StepId step) {
  const absl::Span<const TokenId> tokens = sequence->known.tokens;
  for (size_t& block = sequence->blocks_known;
       static_cast<int32_t>(block + 1) * kKvBlockTokens <= sequence->next_position; ++block) {
    sequence->prefix = ledger_.Remember(sequence->blocks[block], sequence->prefix,
                                        tokens.subspan(block * kKvBlockTokens, kKvBlockTokens), step);
  }
}

// Full blocks of the prompt that another choice of it need not compute.
int32_t Scheduler::PromptBlocks(const Sequence& sequence) {
  return sequence.known.score ? 0 : (sequence.known.prompt_length - 1) / kKvBlockTokens;
}

// So that their full blocks can be shared in a later step.
bool Scheduler::SiblingComputesPrompt(SequenceId id, const Sequence& sequence, StepId step) const {
  const std::set<SequenceId>& group = groups_.at(sequence.group);
  return std::any_of(group.begin(), group.end(), [&](SequenceId other) {
    const Sequence& sibling = sequences_.at(other.value);
    if (other == id || sibling.phase == Phase::kWaiting) return false;
    return sibling.prompt_step.value == 0 || sibling.prompt_step >= step;
  });
}

void Scheduler::AddEntry(SequenceId id, Sequence* sequence, int32_t count, Draft* draft) {
  StepEntry entry;
  entry.sequence = id;
  entry.position = sequence->next_position;
  entry.count = count;
  const std::vector<TokenId>& tokens = sequence->known.tokens;
  entry.new_tokens.assign(tokens.begin() + sequence->tokens_sent, tokens.end());
  entry.new_blocks.assign(sequence->blocks.begin() + sequence->blocks_sent, sequence->blocks.end());
  sequence->tokens_sent = static_cast<int32_t>(tokens.size());
  sequence->blocks_sent = sequence->blocks.size();
  sequence->next_position += count;
  draft->budget -= count;

  const bool complete = sequence->next_position == PositionsNeeded(*sequence);
  entry.sample = complete && !sequence->known.score;
  if (entry.sample || sequence->known.score) {
    ++sequence->outputs_due;
    const bool best = sequence->known.score && sequence->known.sampling.logprobs > 0;
    draft->in_flight.outputs.push_back({id, entry.position, count, entry.sample, best});
  }
  RememberFullBlocks(sequence, draft->step.id);
  if (sequence->prompt_step.value == 0 &&
      sequence->next_position >= PromptBlocks(*sequence) * kKvBlockTokens) {
    sequence->prompt_step = draft->step.id;
  }
  if (complete && sequence->phase == Phase::kPrefill) {
    sequence->phase = Phase::kDecode;
    prefilling_.erase(id);
    if (!sequence->known.score) ++decoding_;
  }
  draft->step.entries.push_back(std::move(entry));
}

absl::StatusOr<std::vector<Scheduler::Output>> Scheduler::Finish(const StepResult& result) {
  if (in_flight_.empty() || result.id != in_flight_.front().id) {
    return absl::InternalError(absl::StrFormat(
        "result of step %d came when %s was due", result.id.value,
        in_flight_.empty() ? std::string("none") : absl::StrFormat("step %d", in_flight_.front().id.value)));
  }
  const std::vector<ExpectedOutput> expected = std::move(in_flight_.front().outputs);
  in_flight_.pop_front();
  if (result.outputs.size() != expected.size()) {
    return absl::InternalError(absl::StrFormat("step %d gave %d outputs, %d were due", result.id.value,
                                               result.outputs.size(), expected.size()));
  }
  std::vector<Output> outputs;
  for (size_t i = 0; i < expected.size(); ++i) {
    const ExpectedOutput& due = expected[i];
    const StepOutput& output = result.outputs[i];
    const size_t scores = due.sample ? 0 : due.count;
    if (output.sequence != due.sequence || (due.sample && output.token < 0 && output.error.empty()) ||
        output.scores.size() != scores || (!due.sample && output.top.size() != (due.best ? scores : 0))) {
      return absl::InternalError(
          absl::StrFormat("step %d, output %d: sequence %d, token %d, %d scores, %d likely tokens; due were "
                          "sequence %d, %s, %d "
                          "scores%s",
                          result.id.value, i, output.sequence.value, output.token, output.scores.size(),
                          output.top.size(), due.sequence.value, due.sample ? "a token" : "no token", scores,
                          due.best ? " with likely tokens" : ""));
    }
    const auto at = sequences_.find(due.sequence.value);
    if (at == sequences_.end()) continue;
    --at->second.outputs_due;
    outputs.push_back({due.sequence, due.position, i});
  }
  return outputs;
}

}  // namespace bellwether
