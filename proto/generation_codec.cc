#include "proto/generation_codec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/defaults.h"

namespace bellwether {

void Encode(const GenerationOptions& options, v1::GenerationOptions* out) {
  v1::Sampling* sampling = out->mutable_sampling();
  if (options.max_tokens) out->set_max_tokens(*options.max_tokens);
  if (options.min_tokens) out->set_min_tokens(*options.min_tokens);
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.min_p) sampling->set_min_p(*options.min_p);
  if (options.repetition_penalty) sampling->set_repetition_penalty(*options.repetition_penalty);
  if (options.presence_penalty) sampling->set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling->set_frequency_penalty(*options.frequency_penalty);
  for (const auto& [id, bias] : options.logit_bias) (*sampling->mutable_logit_bias())[id] = bias;
  if (options.seed) sampling->set_seed(*options.seed);
  for (const std::string& stop : options.stop) out->add_stop(stop);
  for (const TokenId id : options.stop_token_ids) out->add_stop_token_ids(id);
  out->set_ignore_eos(options.ignore_eos);
  if (options.logprobs) out->set_logprobs(*options.logprobs);
  if (options.n) out->set_n(*options.n);
}

absl::StatusOr<GenerationOptions> Decode(const v1::GenerationOptions& message) {
  const v1::Sampling& sampling = message.sampling();
  // Sorting a huge map would be work that nobody asked for; validation names the exact limit.
  if (sampling.logit_bias_size() > kLogitBiasMax) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.logit_bias has ", sampling.logit_bias_size(),
                                                   " entries, allowed are ", kLogitBiasMax));
  }
  GenerationOptions options;
  if (message.has_max_tokens()) options.max_tokens = message.max_tokens();
  if (message.has_min_tokens()) options.min_tokens = message.min_tokens();
  if (sampling.has_temperature()) options.temperature = sampling.temperature();
  if (sampling.has_top_k()) options.top_k = sampling.top_k();
  if (sampling.has_top_p()) options.top_p = sampling.top_p();
  if (sampling.has_min_p()) options.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) options.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_presence_penalty()) options.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) options.frequency_penalty = sampling.frequency_penalty();
  for (const auto& [id, bias] : sampling.logit_bias()) options.logit_bias.emplace_back(id, bias);
  std::sort(options.logit_bias.begin(), options.logit_bias.end());
  if (sampling.has_seed()) options.seed = sampling.seed();
  options.stop.assign(message.stop().begin(), message.stop().end());
  options.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  options.ignore_eos = message.ignore_eos();
  if (message.has_logprobs()) options.logprobs = message.logprobs();
  if (message.has_n()) options.n = message.n();
  return options;
}

void Encode(const PromptInput& prompt, v1::Prompt* out) {
  if (prompt.text) out->set_text(*prompt.text);
  if (prompt.token_ids)
    out->mutable_token_ids()->mutable_ids()->Add(prompt.token_ids->begin(), prompt.token_ids->end());
  out->set_parse_special_tokens(prompt.parse_special_tokens);
  out->set_no_special_tokens(prompt.no_special_tokens);
}

absl::StatusOr<PromptInput> Decode(const v1::Prompt& message) {
  PromptInput prompt;
  switch (message.content_case()) {
    case v1::Prompt::kText:
      prompt.text = message.text();
      break;
    case v1::Prompt::kTokenIds:
      prompt.token_ids.emplace(message.token_ids().ids().begin(), message.token_ids().ids().end());
      break;
    case v1::Prompt::CONTENT_NOT_SET:
      return absl::InvalidArgumentError("prompt is missing: give prompt.text or prompt.token_ids");
  }
  prompt.parse_special_tokens = message.parse_special_tokens();
  prompt.no_special_tokens = message.no_special_tokens();
  return prompt;
}

}  // namespace bellwether
