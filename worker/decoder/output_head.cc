#include "worker/decoder/output_head.h"

#include <algorithm>
#include <cmath>

#include "absl/synchronization/mutex.h"
#include "common/status.h"
#include "model/row_limits.h"
#include "worker/sampling/log_softmax.h"

namespace bellwether {

OutputHead::OutputHead(const Options& options)
    : shard_(*options.shard), assignment_(*options.assignment), group_(*options.group), ops_(*options.ops) {
  column_bounds_.push_back(0);
  for (const RankLayout& rank : assignment_.stage_layout().ranks)
    column_bounds_.push_back(rank.head_rows.end);
}

void OutputHead::CollectWanted(const Step& step, const Batch& batch, StepResult& result) {
  wanted_.clear();
  for (size_t i = 0; i < step.entries.size(); ++i) {
    const StepEntry& entry = step.entries[i];
    const Batch::Run& run = batch.runs[i];
    const bool score = run.sequence->admission.score;
    if (!entry.sample && !score) continue;
    const auto output = static_cast<int32_t>(result.outputs.size());
    result.outputs.push_back({.sequence = entry.sequence});
    if (entry.sample) {
      wanted_.push_back({.row = run.row + run.count - 1, .output = output, .sequence = run.sequence});
      continue;
    }
    const std::vector<TokenId>& tokens = run.sequence->tokens();
    for (int32_t r = 0; r < run.count; ++r) {
      const size_t next = static_cast<size_t>(run.position) + r + 1;
      if (next >= tokens.size()) break;
      wanted_.push_back(
          {.row = run.row + r, .output = output, .sequence = run.sequence, .scored = tokens[next]});
    }
  }
}

absl::Status OutputHead::Run(const Step& step, const Batch& batch, const MessageTag& tag,
                             kernels::ConstRows residual, StepResult& result) {
  CollectWanted(step, batch, result);
  const absl::Span<const WantedRow> wanted = wanted_;
  for (size_t begin = 0; begin < wanted.size(); begin += kLogitRowsMax) {
    const auto rows = wanted.subspan(begin, kLogitRowsMax);
    BW_RETURN_IF_ERROR(ComputeLogits(rows, tag, residual));
    if (group_.rank() == 0) UseLogits(rows, result);
  }
  if (group_.rank() != 0) result.outputs.clear();
  return absl::OkStatus();
}

absl::Status OutputHead::ComputeLogits(absl::Span<const WantedRow> rows, MessageTag tag,
                                       kernels::ConstRows residual) {
  const ModelConfig& config = shard_.config;
  const auto count = static_cast<int64_t>(rows.size());
  const kernels::MutableRows normed = normed_.Get(count, config.hidden);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = residual.row(rows[i].row);
    std::copy(row, row + config.hidden, normed.row(i));
  }
  ops_.Norm(AsConst(normed), shard_.final_norm, config.hidden, config.norm_epsilon, normed);

  // Rank 0 computes its columns in place among all of them, the others theirs alone.
  const Range own = assignment_.rank_layout().head_rows;
  logits_rows_ = logits_.Get(count, group_.rank() == 0 ? column_bounds_.back() : own.size());
  ops_.Multiply(AsConst(normed), {{&shard_.head_matrix(), nullptr, logits_rows_.data, logits_rows_.stride}});
  if (group_.size() == 1) return absl::OkStatus();
  tag.kind = MessageKind::kLogits;
  tag.rows = static_cast<int32_t>(count);
  return group_.GatherColumns(tag, column_bounds_,
                              absl::MakeSpan(logits_rows_.data, count * logits_rows_.stride));
}

void OutputHead::UseLogits(absl::Span<const WantedRow> rows, StepResult& result) {
  std::vector<absl::StatusOr<SampledToken>> sampled(rows.size(), SampledToken{});
  std::vector<float> scores(rows.size());
  ops_.ForItems(static_cast<int64_t>(rows.size()), [&](int64_t begin, int64_t end) {
    thread_local SamplingScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const WantedRow& row = rows[i];
      const auto logits = absl::MakeConstSpan(logits_rows_.row(i), logits_rows_.stride);
      if (row.scored >= 0) {
        scores[i] = LogSoftmaxAt(logits, row.scored);
        continue;
      }
      const Admission& admission = row.sequence->admission;
      sampled[i] = Sample({.logits = logits,
                           .options = admission.sampling,
                           .tokens = admission.tokens,
                           .prompt_length = admission.prompt_length,
                           .choice = admission.choice},
                          scratch);
    }
  });
  for (size_t i = 0; i < rows.size(); ++i) {
    StepOutput& output = result.outputs[rows[i].output];
    if (rows[i].scored >= 0) {
      output.scores.push_back(scores[i]);
      if (std::isnan(scores[i])) output.error = "a log-probability is NaN: the weights are broken";
      continue;
    }
    if (!sampled[i].ok()) {
      output.error = std::string(sampled[i].status().message());
      continue;
    }
    output.token = sampled[i]->token;
    output.logprob = sampled[i]->logprob;
    output.top = std::move(sampled[i]->top);
  }
}

}  // namespace bellwether
