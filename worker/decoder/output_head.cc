#include "worker/decoder/output_head.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/row_limits.h"
#include "worker/sampling/largest.h"
#include "worker/sampling/log_softmax.h"
#include "worker/sampling/sampler.h"

namespace bellwether {
namespace {

int64_t LogitRows(const Assignment& assignment) {
  return std::min<int64_t>(kLogitRowsMax, assignment.step_tokens);
}

int64_t LogitCols(const Assignment& assignment) {
  return assignment.rank == 0 ? assignment.stage_layout().ranks.back().head_rows.end
                              : assignment.rank_layout().head_rows.size();
}

}  // namespace

int64_t OutputHead::GatherFloatsMax(const Assignment& assignment) {
  return LogitRows(assignment) * LogitCols(assignment);
}

OutputHead::OutputHead(const Options& options)
    : shard_(*options.shard),
      assignment_(*options.assignment),
      group_(*options.group),
      ops_(*options.ops),
      layers_(*options.layers),
      logits_cols_(LogitCols(assignment_)) {
  column_bounds_.push_back(0);
  for (const RankLayout& rank : assignment_.stage_layout().ranks)
    column_bounds_.push_back(rank.head_rows.end);
}

absl::StatusOr<std::unique_ptr<OutputHead>> OutputHead::Create(const Options& options) {
  auto head = std::unique_ptr<OutputHead>(new OutputHead(options));
  if (const absl::Status status = head->Allocate(); !status.ok()) return Annotate(status, "logits");
  return head;
}

absl::Status OutputHead::Allocate() {
  const int64_t rows = LogitRows(assignment_);
  BW_ASSIGN_OR_RETURN(normed_, ops_.Allocate(rows * shard_.config.hidden));
  BW_ASSIGN_OR_RETURN(logits_, ops_.Allocate(rows * logits_cols_));
  if (group_.rank() != 0) return absl::OkStatus();
  host_logits_ = ops_.HostView(logits_);
  if (host_logits_ == nullptr) {
    BW_ASSIGN_OR_RETURN(host_buffer_, ops_.AllocateHost(rows * logits_cols_));
    host_logits_ = host_buffer_;
  }
  return absl::OkStatus();
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

absl::Status OutputHead::Run(const Step& step, const Batch& batch, const MessageTag& tag, ConstRows residual,
                             StepResult& result) {
  CollectWanted(step, batch, result);
  const absl::Span<const WantedRow> wanted = wanted_;
  for (size_t begin = 0; begin < wanted.size(); begin += kLogitRowsMax) {
    const auto rows = wanted.subspan(begin, kLogitRowsMax);
    BW_RETURN_IF_ERROR(ComputeLogits(rows, tag, residual));
    if (group_.rank() != 0) continue;
    Decided decided(rows.size());
    if (host_buffer_ != nullptr) {
      BW_RETURN_IF_ERROR(SampleFromLargest(rows, decided));
      BW_RETURN_IF_ERROR(FetchLogits(decided));
    }
    UseLogits(rows, decided, result);
  }
  if (group_.rank() != 0) result.outputs.clear();
  return absl::OkStatus();
}

absl::Status OutputHead::ComputeLogits(absl::Span<const WantedRow> rows, MessageTag tag, ConstRows residual) {
  const ModelConfig& config = shard_.config;
  const auto count = static_cast<int64_t>(rows.size());
  std::array<int32_t, kLogitRowsMax> picks;
  for (int64_t i = 0; i < count; ++i) picks[i] = rows[i].row;
  const MutableRows normed = {normed_, count, config.hidden};
  ops_.PickRows(residual, absl::MakeConstSpan(picks.data(), count), config.hidden, normed);
  ops_.Norm(AsConst(normed), shard_.final_norm, config.hidden, config.norm_epsilon, normed);
  BW_RETURN_IF_ERROR(MultiplyHead(AsConst(normed)));
  if (group_.size() == 1) return absl::OkStatus();
  tag.kind = MessageKind::kLogits;
  tag.rows = static_cast<int32_t>(count);
  return group_.GatherColumns(tag, column_bounds_, absl::MakeSpan(logits_, count * logits_cols_));
}

// Every logit is a product of its own: in how many pieces the head comes shows nowhere.
absl::Status OutputHead::MultiplyHead(ConstRows normed) {
  if (shard_.head_pieces.empty()) {
    ops_.Multiply(normed, {{&shard_.head_matrix(), {}, logits_, logits_cols_}});
    return absl::OkStatus();
  }
  const int64_t first = shard_.rank.head_rows.begin, pieces = static_cast<int64_t>(shard_.head_pieces.size());
  for (int64_t i = 0; i < pieces; ++i) {
    BW_ASSIGN_OR_RETURN(const VocabularyPiece* piece, layers_.AcquireHead(i));
    ops_.Multiply(normed, {{piece->matrix.get(), {}, logits_ + (piece->rows.begin - first), logits_cols_}});
    BW_RETURN_IF_ERROR(layers_.ReleaseHead());
  }
  return absl::OkStatus();
}

absl::Status OutputHead::SampleFromLargest(absl::Span<const WantedRow> rows, Decided& decided) {
  std::vector<int> needed;
  for (const WantedRow& row : rows)
    needed.push_back(row.scored >= 0 ? 0 : LargestNeeded(InputOf(row, {}), logits_cols_));
  const int count = *std::max_element(needed.begin(), needed.end());
  if (count == 0) return absl::OkStatus();
  const auto logits = ConstRows{logits_, static_cast<int64_t>(rows.size()), logits_cols_};
  BW_ASSIGN_OR_RETURN(const auto largest, ops_.Largest(logits, logits_cols_, count));
  if (largest.empty()) return absl::OkStatus();
  const size_t each = largest.size() / rows.size();
  ops_.OnHost(static_cast<int64_t>(rows.size()), [&](int64_t begin, int64_t end) {
    thread_local SamplingScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      if (needed[i] > 0) {
        decided[i] = bellwether::SampleFromLargest(InputOf(rows[i], {}), largest.subspan(i * each, each),
                                                   count, scratch);
      }
    }
  });
  return absl::OkStatus();
}

// Neighbours at once.
absl::Status OutputHead::FetchLogits(const Decided& decided) {
  for (size_t begin = 0; begin < decided.size();) {
    size_t end = begin;
    while (end < decided.size() && !decided[end]) ++end;
    if (end > begin) {
      BW_RETURN_IF_ERROR(
          ops_.Read(logits_ + begin * logits_cols_,
                    absl::MakeSpan(host_buffer_ + begin * logits_cols_, (end - begin) * logits_cols_)));
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

// The likeliest cause of numbers that are none. Other ranks and stages hold most keys and values, so what is
// in them is not looked up.
std::string OutputHead::WhyNotFinite() const {
  if (assignment_.numeric.kv_type != DType::kF16) return "the weights are broken";
  return "a key or value overflows the fp16 KV cache, which holds up to 65504: use --kv-type bf16 or fp32 "
         "(if "
         "that fails too, the weights are broken)";
}

SamplingInput OutputHead::InputOf(const WantedRow& row, absl::Span<const float> logits) {
  const Admission& admission = row.sequence->admission;
  return {.logits = logits,
          .options = admission.sampling,
          .tokens = admission.tokens,
          .prompt_length = admission.prompt_length,
          .choice = admission.choice};
}

void OutputHead::UseLogits(absl::Span<const WantedRow> rows, const Decided& decided, StepResult& result) {
  std::vector<absl::StatusOr<SampledToken>> sampled(rows.size(), SampledToken{});
  std::vector<float> scores(rows.size());
  std::vector<TokenLogprob> best(rows.size());
  ops_.OnHost(static_cast<int64_t>(rows.size()), [&](int64_t begin, int64_t end) {
    thread_local SamplingScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const WantedRow& row = rows[i];
      const auto logits = absl::MakeConstSpan(host_logits_ + i * logits_cols_, logits_cols_);
      const Admission& admission = row.sequence->admission;
      if (row.scored >= 0) {
        scores[i] = LogSoftmaxAt(logits, row.scored);
        best[i] = {row.scored, scores[i]};
        if (admission.sampling.logprobs > 0 && !std::isnan(scores[i]))
          best[i] = TopLogprobs(logits, LogSumExp(logits), 1).front();
        continue;
      }
      sampled[i] = decided[i] ? *decided[i] : Sample(InputOf(row, logits), scratch);
    }
  });
  for (size_t i = 0; i < rows.size(); ++i) {
    StepOutput& output = result.outputs[rows[i].output];
    if (rows[i].scored >= 0) {
      output.scores.push_back(scores[i]);
      if (rows[i].sequence->admission.sampling.logprobs > 0) output.top.push_back(best[i]);
      if (std::isnan(scores[i])) output.error = absl::StrCat("a log-probability is NaN: ", WhyNotFinite());
      continue;
    }
    if (const absl::Status& status = sampled[i].status(); !status.ok()) {
      output.error = std::string(status.message());
      if (absl::IsDataLoss(status)) absl::StrAppend(&output.error, ": ", WhyNotFinite());
      continue;
    }
    output.token = sampled[i]->token;
    output.logprob = sampled[i]->logprob;
    output.top = std::move(sampled[i]->top);
  }
}

}  // namespace bellwether
