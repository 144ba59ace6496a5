#include "tests/simulation/fake_cluster.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/random.h"
#include "common/status.h"
#include "proto/step_codec.h"

namespace bellwether {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  const auto words = Philox4x32({static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32), 7u, 0u},
                                {static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32)});
  return uint64_t{words[0]} << 32 | words[1];
}

template <typename... Args>
absl::Status Broken(const absl::FormatSpec<Args...>& format, const Args&... args) {
  return absl::InvalidArgumentError(absl::StrFormat(format, args...));
}

}  // namespace

uint64_t FakeModel::Absorb(uint64_t state, TokenId token) {
  return Mix(state, static_cast<uint64_t>(token) + 1);
}

uint64_t FakeModel::Absorb(const std::vector<TokenId>& tokens) {
  uint64_t state = 0;
  for (const TokenId token : tokens) state = Absorb(state, token);
  return state;
}

TokenId FakeModel::Sample(uint64_t state, uint64_t seed, int32_t choice) {
  const uint64_t draw = Mix(Mix(state, seed), static_cast<uint64_t>(choice) + 1000);
  const bool fails = (draw >> 32) % 1024 == 0;
  return fails ? -1 : static_cast<TokenId>(draw % kVocab);
}

float FakeModel::Score(uint64_t state, TokenId next) {
  return -static_cast<float>(Mix(state, static_cast<uint64_t>(next) + 5000) % 4096) / 256.0f;
}

FakeCluster::FakeCluster(Epoch epoch, Limits limits)
    : epoch_(epoch),
      limits_(limits),
      cache_(limits.kv_blocks, std::vector<Slot>(kKvBlockTokens)),
      holders_(limits.kv_blocks, 0) {}

absl::Status FakeCluster::Run(const Step& step, StepResult* result) {
  if (step.epoch != epoch_) return Broken("step of epoch %d in epoch %d", step.epoch.value, epoch_.value);
  if (step.id.value != last_step_.value + 1) {
    return Broken("step %d after step %d", step.id.value, last_step_.value);
  }
  last_step_ = step.id;
  if (step.entries.empty()) return Broken("an empty step");
  v1::CoordinatorMessage message;
  Encode(step, message.mutable_step());
  if (const auto bytes = static_cast<int64_t>(message.ByteSizeLong()); bytes > limits_.step_bytes_max) {
    return Broken("a step of %d bytes, %d allowed", bytes, limits_.step_bytes_max);
  }
  result->epoch = step.epoch;
  result->id = step.id;
  BW_RETURN_IF_ERROR(Retire(step));
  BW_RETURN_IF_ERROR(Admit(step));
  int32_t tokens = 0;
  std::set<SequenceId> in_step;
  for (const StepEntry& entry : step.entries) {
    tokens += entry.count;
    if (!in_step.insert(entry.sequence).second) {
      return Broken("sequence %d twice in a step", entry.sequence.value);
    }
    BW_RETURN_IF_ERROR(RunEntry(step, entry, result));
  }
  if (tokens > limits_.step_tokens_max) {
    return Broken("%d tokens in a step, %d allowed", tokens, limits_.step_tokens_max);
  }
  return absl::OkStatus();
}

absl::Status FakeCluster::Retire(const Step& step) {
  for (const SequenceId id : step.retired) {
    const auto at = sequences_.find(id);
    if (at == sequences_.end()) return Broken("sequence %d is retired but not here", id.value);
    for (const KvBlockId block : at->second.table) --holders_[block];
    sequences_.erase(at);
  }
  return absl::OkStatus();
}

absl::Status FakeCluster::Admit(const Step& step) {
  for (const Admission& admission : step.admissions) {
    if (!seen_.insert(admission.sequence).second) ++readmissions_;
    if (!sequences_.emplace(admission.sequence, Sequence{admission}).second) {
      return Broken("sequence %d is admitted twice", admission.sequence.value);
    }
  }
  if (static_cast<int32_t>(sequences_.size()) > limits_.sequences_max) {
    return Broken("%d sequences, %d allowed", sequences_.size(), limits_.sequences_max);
  }
  return absl::OkStatus();
}

absl::Status FakeCluster::RunEntry(const Step& step, const StepEntry& entry, StepResult* result) {
  const SequenceId id = entry.sequence;
  const auto at = sequences_.find(id);
  if (at == sequences_.end()) return Broken("sequence %d is not admitted", id.value);
  Sequence& sequence = at->second;
  std::vector<TokenId>& tokens = sequence.known.tokens;
  tokens.insert(tokens.end(), entry.new_tokens.begin(), entry.new_tokens.end());
  BW_RETURN_IF_ERROR(ExtendTable(entry, &sequence));
  if (sequence.next_position < 0) {
    // The first entry may start behind blocks that another sequence has written.
    if (entry.position % kKvBlockTokens != 0)
      return Broken("sequence %d starts at %d", id.value, entry.position);
    sequence.next_position = entry.position;
    blocks_shared_ += entry.position / kKvBlockTokens;
    for (int32_t i = 0; i < entry.position; ++i)
      sequence.state = FakeModel::Absorb(sequence.state, tokens[i]);
  }
  if (entry.position != sequence.next_position) {
    return Broken("sequence %d: position %d, %d was next", id.value, entry.position, sequence.next_position);
  }
  const int32_t end = entry.position + entry.count;
  if (entry.count < 1 || end > static_cast<int32_t>(tokens.size())) {
    return Broken("sequence %d: positions up to %d of %d tokens", id.value, end, tokens.size());
  }
  if (entry.sample && (end != static_cast<int32_t>(tokens.size()) || sequence.known.score)) {
    return Broken("sequence %d is sampled at %d of %d tokens", id.value, end, tokens.size());
  }
  BW_RETURN_IF_ERROR(CheckCache(step.id, id, sequence, entry.position));
  StepOutput output;
  output.sequence = id;
  for (int32_t position = entry.position; position < end; ++position) {
    BW_RETURN_IF_ERROR(Write(step.id, id, &sequence, position));
    if (sequence.known.score && position + 1 < static_cast<int32_t>(tokens.size())) {
      const float score = FakeModel::Score(sequence.state, tokens[position + 1]);
      output.scores.push_back(score);
      if (sequence.known.sampling.logprobs > 0) output.top.push_back({tokens[position + 1], score / 2});
    }
  }
  if (entry.sample) {
    output.token = FakeModel::Sample(sequence.state, sequence.known.sampling.seed, sequence.known.choice);
    if (output.token < 0) output.error = "a logit is NaN";
  }
  if (entry.sample || sequence.known.score) result->outputs.push_back(std::move(output));
  return absl::OkStatus();
}

absl::Status FakeCluster::ExtendTable(const StepEntry& entry, Sequence* sequence) {
  for (const KvBlockId block : entry.new_blocks) {
    if (block < 0 || block >= limits_.kv_blocks) return Broken("block %d of %d", block, limits_.kv_blocks);
    ++holders_[block];
    sequence->table.push_back(block);
  }
  const int32_t end = entry.position + entry.count;
  if (end > static_cast<int32_t>(sequence->table.size()) * kKvBlockTokens) {
    return Broken("sequence %d: position %d has no block", entry.sequence.value, end - 1);
  }
  return absl::OkStatus();
}

// Everything before `positions` is in the cache, written before this step or by this sequence.
absl::Status FakeCluster::CheckCache(StepId step, SequenceId id, const Sequence& sequence,
                                     int32_t positions) {
  uint64_t state = 0;
  for (int32_t i = 0; i < positions; ++i) {
    state = FakeModel::Absorb(state, sequence.known.tokens[i]);
    const Slot& slot = cache_[sequence.table[i / kKvBlockTokens]][i % kKvBlockTokens];
    if (slot.state != state) return Broken("sequence %d: the cache is wrong at position %d", id.value, i);
    if (slot.step == step) {
      return Broken("sequence %d reads what sequence %d writes in the same step", id.value,
                    slot.writer.value);
    }
  }
  return absl::OkStatus();
}

absl::Status FakeCluster::Write(StepId step, SequenceId id, Sequence* sequence, int32_t position) {
  const KvBlockId block = sequence->table[position / kKvBlockTokens];
  if (holders_[block] != 1) return Broken("sequence %d writes block %d, which is shared", id.value, block);
  sequence->state = FakeModel::Absorb(sequence->state, sequence->known.tokens[position]);
  cache_[block][position % kKvBlockTokens] = {sequence->state, id, step};
  sequence->next_position = position + 1;
  return absl::OkStatus();
}

}  // namespace bellwether
