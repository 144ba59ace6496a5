#include "worker/sequence_table.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"

namespace bellwether {
namespace {

absl::Status Contradiction(SequenceId id, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("sequence ", id.value, ": ", what));
}

}  // namespace

const SequenceState& SequenceTable::at(SequenceId id) const {
  const auto found = sequences_.find(id);
  BW_CHECK(found != sequences_.end());
  return found->second;
}

absl::Status SequenceTable::Admit(const Admission& admission) {
  const SequenceId id = admission.sequence;
  const auto length = static_cast<int64_t>(admission.tokens.size());
  if (length < 1 || length > limits_.context_tokens) {
    return Contradiction(id, absl::StrCat(length, " tokens, at most ", limits_.context_tokens));
  }
  if (admission.prompt_length < 1 || admission.prompt_length > length) {
    return Contradiction(id,
                         absl::StrCat("a prompt of ", admission.prompt_length, " of ", length, " tokens"));
  }
  for (TokenId token : admission.tokens) {
    if (token < 0 || token >= limits_.vocab) return Contradiction(id, absl::StrCat("no token ", token));
  }
  if (static_cast<int64_t>(sequences_.size()) >= limits_.sequences)
    return Contradiction(id, "too many sequences");
  const bool added = sequences_.emplace(id, SequenceState{.admission = admission}).second;
  return added ? absl::OkStatus() : Contradiction(id, "admitted twice");
}

absl::Status SequenceTable::Extend(const StepEntry& entry) {
  const auto found = sequences_.find(entry.sequence);
  if (found == sequences_.end()) return Contradiction(entry.sequence, "not admitted");
  SequenceState& sequence = found->second;
  std::vector<TokenId>& tokens = sequence.admission.tokens;
  for (TokenId token : entry.new_tokens) {
    if (token < 0 || token >= limits_.vocab)
      return Contradiction(entry.sequence, absl::StrCat("no token ", token));
    tokens.push_back(token);
  }
  for (KvBlockId block : entry.new_blocks) {
    if (block < 0 || block >= limits_.kv_blocks) {
      return Contradiction(entry.sequence, absl::StrCat("no KV block ", block));
    }
    sequence.blocks.push_back(block);
  }
  const int64_t end = int64_t{entry.position} + entry.count;
  if (entry.position < 0 || entry.count < 1 || end > static_cast<int64_t>(tokens.size()) ||
      end > limits_.context_tokens) {
    return Contradiction(entry.sequence, absl::StrCat("positions ", entry.position, " to ", end, " of ",
                                                      tokens.size(), " tokens"));
  }
  if (end > static_cast<int64_t>(sequence.blocks.size()) * kKvBlockTokens) {
    return Contradiction(entry.sequence,
                         absl::StrCat(end, " positions in ", sequence.blocks.size(), " KV blocks"));
  }
  if (entry.sample && end != static_cast<int64_t>(tokens.size())) {
    return Contradiction(entry.sequence, "samples a token that is known");
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::Apply(const Step& step) {
  const auto apply = [&]() -> absl::Status {
    for (SequenceId id : step.retired) {
      if (sequences_.erase(id) == 0) return Contradiction(id, "retired but not admitted");
    }
    for (const Admission& admission : step.admissions) BW_RETURN_IF_ERROR(Admit(admission));
    int64_t tokens = 0;
    for (const StepEntry& entry : step.entries) {
      BW_RETURN_IF_ERROR(Extend(entry));
      tokens += entry.count;
    }
    if (tokens > limits_.step_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(tokens, " tokens, at most ", limits_.step_tokens));
    }
    return absl::OkStatus();
  };
  return Annotate(apply(), absl::StrCat("step ", step.id.value));
}

}  // namespace bellwether
