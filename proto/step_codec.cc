#include "proto/step_codec.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/status.h"

namespace bellwether {
namespace {

constexpr int64_t kOutputErrorBytesMax = 1024;

absl::Status Wrong(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", what));
}

absl::Status CheckCount(absl::string_view field, int64_t count, int64_t limit) {
  if (count > limit) return Wrong(field, absl::StrCat("has ", count, " items, allowed are ", limit));
  return absl::OkStatus();
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    return Wrong(field, absl::StrCat("is ", value, ", allowed is ", low, " to ", high));
  }
  return absl::OkStatus();
}

template <typename Ids>
absl::Status CopyIds(absl::string_view field, const Ids& ids, std::vector<int32_t>* out) {
  BW_RETURN_IF_ERROR(CheckCount(field, ids.size(), kSequenceTokensMax));
  for (const int32_t id : ids) {
    if (id < 0) return Wrong(field, absl::StrCat("holds ", id, ", which is below 0"));
  }
  out->assign(ids.begin(), ids.end());
  return absl::OkStatus();
}

void Encode(const SamplingOptions& options, v1::SamplingOptions* out) {
  out->set_temperature(options.temperature);
  out->set_top_k(options.top_k);
  out->set_top_p(options.top_p);
  out->set_min_p(options.min_p);
  out->set_repetition_penalty(options.repetition_penalty);
  out->set_presence_penalty(options.presence_penalty);
  out->set_frequency_penalty(options.frequency_penalty);
  for (const auto& [id, value] : options.logit_bias) {
    out->add_bias_ids(id);
    out->add_bias_values(value);
  }
  out->set_min_tokens(options.min_tokens);
  out->mutable_ending_tokens()->Add(options.ending_tokens.begin(), options.ending_tokens.end());
  out->set_seed(options.seed);
  out->set_logprobs(options.logprobs);
}

absl::StatusOr<SamplingOptions> Decode(const v1::SamplingOptions& message) {
  SamplingOptions options;
  for (const double value :
       {message.temperature(), message.top_p(), message.min_p(), message.repetition_penalty(),
        message.presence_penalty(), message.frequency_penalty()}) {
    if (!std::isfinite(value)) return Wrong("sampling", "holds a number that is not finite");
  }
  if (message.temperature() < 0) return Wrong("sampling.temperature", "is below 0");
  if (message.repetition_penalty() <= 0) return Wrong("sampling.repetition_penalty", "is not above 0");
  BW_RETURN_IF_ERROR(CheckRange("sampling.top_k", message.top_k(), 0, INT32_MAX));
  BW_RETURN_IF_ERROR(CheckRange("sampling.min_tokens", message.min_tokens(), 0, INT32_MAX));
  BW_RETURN_IF_ERROR(CheckRange("sampling.logprobs", message.logprobs(), -1, kTopLogprobsMax));
  if (message.bias_ids_size() != message.bias_values_size()) {
    return Wrong("sampling.bias_ids", "and bias_values differ in number");
  }
  std::vector<int32_t> bias_ids;
  BW_RETURN_IF_ERROR(CopyIds("sampling.bias_ids", message.bias_ids(), &bias_ids));
  for (size_t i = 0; i < bias_ids.size(); ++i) {
    const float value = message.bias_values(static_cast<int>(i));
    if (!std::isfinite(value)) return Wrong("sampling.bias_values", "holds a number that is not finite");
    if (i > 0 && bias_ids[i] <= bias_ids[i - 1]) return Wrong("sampling.bias_ids", "are not ascending");
    options.logit_bias.emplace_back(bias_ids[i], value);
  }
  BW_RETURN_IF_ERROR(CopyIds("sampling.ending_tokens", message.ending_tokens(), &options.ending_tokens));
  options.temperature = message.temperature();
  options.top_k = message.top_k();
  options.top_p = message.top_p();
  options.min_p = message.min_p();
  options.repetition_penalty = message.repetition_penalty();
  options.presence_penalty = message.presence_penalty();
  options.frequency_penalty = message.frequency_penalty();
  options.min_tokens = message.min_tokens();
  options.seed = message.seed();
  options.logprobs = message.logprobs();
  return options;
}

void Encode(const Admission& admission, v1::Admission* out) {
  out->set_sequence(admission.sequence.value);
  out->set_choice(admission.choice);
  out->mutable_tokens()->Add(admission.tokens.begin(), admission.tokens.end());
  out->set_prompt_length(admission.prompt_length);
  out->set_score(admission.score);
  Encode(admission.sampling, out->mutable_sampling());
}

absl::StatusOr<Admission> Decode(const v1::Admission& message) {
  Admission admission;
  admission.sequence.value = message.sequence();
  BW_RETURN_IF_ERROR(CheckRange("admission.choice", message.choice(), 0, kStepEntriesMax));
  admission.choice = message.choice();
  BW_RETURN_IF_ERROR(CopyIds("admission.tokens", message.tokens(), &admission.tokens));
  BW_RETURN_IF_ERROR(
      CheckRange("admission.prompt_length", message.prompt_length(), 0, message.tokens_size()));
  admission.prompt_length = message.prompt_length();
  admission.score = message.score();
  BW_ASSIGN_OR_RETURN(admission.sampling, Decode(message.sampling()));
  return admission;
}

void Encode(const StepEntry& entry, v1::StepEntry* out) {
  out->set_sequence(entry.sequence.value);
  out->set_position(entry.position);
  out->set_count(entry.count);
  out->mutable_new_tokens()->Add(entry.new_tokens.begin(), entry.new_tokens.end());
  out->mutable_new_blocks()->Add(entry.new_blocks.begin(), entry.new_blocks.end());
  out->set_sample(entry.sample);
}

absl::StatusOr<StepEntry> Decode(const v1::StepEntry& message) {
  StepEntry entry;
  entry.sequence.value = message.sequence();
  BW_RETURN_IF_ERROR(CheckRange("entry.position", message.position(), 0, kSequenceTokensMax));
  BW_RETURN_IF_ERROR(CheckRange("entry.count", message.count(), 0, kSequenceTokensMax));
  entry.position = message.position();
  entry.count = message.count();
  BW_RETURN_IF_ERROR(CopyIds("entry.new_tokens", message.new_tokens(), &entry.new_tokens));
  BW_RETURN_IF_ERROR(CopyIds("entry.new_blocks", message.new_blocks(), &entry.new_blocks));
  entry.sample = message.sample();
  return entry;
}

void Encode(const StepOutput& output, v1::StepOutput* out) {
  out->set_sequence(output.sequence.value);
  out->set_token(output.token);
  out->set_logprob(output.logprob);
  for (const TokenLogprob& top : output.top) {
    out->add_top_ids(top.token);
    out->add_top_logprobs(top.logprob);
  }
  out->mutable_scores()->Add(output.scores.begin(), output.scores.end());
  out->set_error(output.error.substr(0, kOutputErrorBytesMax));
}

absl::StatusOr<StepOutput> Decode(const v1::StepOutput& message) {
  StepOutput output;
  output.sequence.value = message.sequence();
  if (message.token() < -1) return Wrong("output.token", absl::StrCat("is ", message.token()));
  output.token = message.token();
  output.logprob = message.logprob();
  // Of a sampled token the most likely ones; of scored tokens the most likely one of each.
  BW_RETURN_IF_ERROR(CheckCount("output.scores", message.scores_size(), kSequenceTokensMax));
  BW_RETURN_IF_ERROR(
      CheckCount("output.top_ids", message.top_ids_size(), std::max(kTopLogprobsMax, message.scores_size())));
  if (message.top_ids_size() != message.top_logprobs_size()) {
    return Wrong("output.top_ids", "and top_logprobs differ in number");
  }
  std::vector<int32_t> top_ids;
  BW_RETURN_IF_ERROR(CopyIds("output.top_ids", message.top_ids(), &top_ids));
  for (size_t i = 0; i < top_ids.size(); ++i) {
    output.top.push_back({.token = top_ids[i], .logprob = message.top_logprobs(static_cast<int>(i))});
  }
  output.scores.assign(message.scores().begin(), message.scores().end());
  BW_RETURN_IF_ERROR(CheckCount("output.error", message.error().size(), kOutputErrorBytesMax));
  output.error = message.error();
  return output;
}

}  // namespace

void Encode(const Step& step, v1::Step* out) {
  out->set_epoch(step.epoch.value);
  out->set_id(step.id.value);
  for (const Admission& admission : step.admissions) Encode(admission, out->add_admissions());
  for (const SequenceId retired : step.retired) out->add_retired(retired.value);
  for (const StepEntry& entry : step.entries) Encode(entry, out->add_entries());
}

absl::StatusOr<Step> Decode(const v1::Step& message) {
  Step step;
  step.epoch.value = message.epoch();
  step.id.value = message.id();
  BW_RETURN_IF_ERROR(CheckCount("step.admissions", message.admissions_size(), kStepEntriesMax));
  BW_RETURN_IF_ERROR(CheckCount("step.entries", message.entries_size(), kStepEntriesMax));
  for (const v1::Admission& admission : message.admissions()) {
    BW_ASSIGN_OR_RETURN(Admission decoded, Decode(admission));
    step.admissions.push_back(std::move(decoded));
  }
  for (const uint64_t retired : message.retired()) step.retired.push_back({retired});
  for (const v1::StepEntry& entry : message.entries()) {
    BW_ASSIGN_OR_RETURN(StepEntry decoded, Decode(entry));
    step.entries.push_back(std::move(decoded));
  }
  return step;
}

void Encode(const StepResult& result, v1::StepResult* out) {
  out->set_epoch(result.epoch.value);
  out->set_id(result.id.value);
  for (const StepOutput& output : result.outputs) Encode(output, out->add_outputs());
}

absl::StatusOr<StepResult> Decode(const v1::StepResult& message) {
  StepResult result;
  result.epoch.value = message.epoch();
  result.id.value = message.id();
  BW_RETURN_IF_ERROR(CheckCount("step_result.outputs", message.outputs_size(), kStepEntriesMax));
  for (const v1::StepOutput& output : message.outputs()) {
    BW_ASSIGN_OR_RETURN(StepOutput decoded, Decode(output));
    result.outputs.push_back(std::move(decoded));
  }
  return result;
}

}  // namespace bellwether
