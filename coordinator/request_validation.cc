#include "coordinator/request_validation.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/defaults.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/request_error.h"

namespace bellwether {
namespace {

constexpr size_t kRequestIdBytesMax = 128;

absl::Status AboutField(const std::string& message, absl::string_view field) {
  return WithField(absl::InvalidArgumentError(message), {field.data(), field.size()});
}

template <typename Value>
absl::Status NotAllowed(absl::string_view field, Value value, absl::string_view allowed) {
  return AboutField(absl::StrCat(field, " is ", value, ", allowed is ", allowed), field);
}

absl::Status TooMany(absl::string_view field, size_t count, int64_t limit) {
  return AboutField(absl::StrCat(field, " has ", count, " entries, allowed are at most ", limit), field);
}

absl::Status CheckInteger(absl::string_view field, const std::optional<int32_t>& value, int64_t low,
                          int64_t high) {
  if (!value || (*value >= low && *value <= high)) return absl::OkStatus();
  return NotAllowed(field, *value, absl::StrCat(low, " to ", high));
}

absl::Status CheckReal(absl::string_view field, const std::optional<double>& value, double low, double high) {
  if (!value || (*value >= low && *value <= high)) return absl::OkStatus();  // NaN is neither
  return NotAllowed(field, *value, absl::StrCat(low, " to ", high));
}

absl::Status CheckTokenId(absl::string_view field, TokenId id, int32_t vocab) {
  if (id >= 0 && id < vocab) return absl::OkStatus();
  return AboutField(absl::StrCat(field, " holds token id ", id, ", allowed is 0 to ", vocab - 1), field);
}

absl::Status ValidateSampling(const GenerationOptions& options, const RequestLimits& limits) {
  if (options.temperature && !(*options.temperature >= 0 && std::isfinite(*options.temperature))) {
    return NotAllowed("sampling.temperature", *options.temperature, "0 or more");
  }
  BW_RETURN_IF_ERROR(CheckInteger("sampling.top_k", options.top_k, 0, INT32_MAX));
  if (options.top_p && !(*options.top_p > 0 && *options.top_p <= 1)) {
    return NotAllowed("sampling.top_p", *options.top_p, "above 0 to 1");
  }
  BW_RETURN_IF_ERROR(CheckReal("sampling.min_p", options.min_p, 0, 1));
  if (options.repetition_penalty &&
      !(*options.repetition_penalty > 0 && std::isfinite(*options.repetition_penalty))) {
    return NotAllowed("sampling.repetition_penalty", *options.repetition_penalty, "above 0");
  }
  BW_RETURN_IF_ERROR(CheckReal("sampling.presence_penalty", options.presence_penalty, -100, 100));
  BW_RETURN_IF_ERROR(CheckReal("sampling.frequency_penalty", options.frequency_penalty, -100, 100));
  if (options.logit_bias.size() > static_cast<size_t>(kLogitBiasMax)) {
    return TooMany("sampling.logit_bias", options.logit_bias.size(), kLogitBiasMax);
  }
  for (const auto& [id, bias] : options.logit_bias) {
    BW_RETURN_IF_ERROR(CheckTokenId("sampling.logit_bias", id, limits.vocab));
    BW_RETURN_IF_ERROR(CheckReal(absl::StrCat("sampling.logit_bias[", id, "]"), bias, -1000, 1000));
  }
  return absl::OkStatus();
}

absl::Status ValidateStops(const GenerationOptions& options, const RequestLimits& limits) {
  if (options.stop.size() > static_cast<size_t>(kStopStringsMax)) {
    return TooMany("stop", options.stop.size(), kStopStringsMax);
  }
  if (!options.stop.empty() && !limits.has_tokenizer) {
    return AboutField("stop needs text, but the model has no tokenizer: use stop_token_ids", "stop");
  }
  for (const std::string& stop : options.stop) {
    if (stop.empty()) return AboutField("stop holds an empty string, which would end every answer", "stop");
    if (stop.size() > static_cast<size_t>(kStopStringBytesMax)) {
      return AboutField(absl::StrCat("stop holds a string of ", stop.size(), " bytes, allowed are at most ",
                                     kStopStringBytesMax),
                        "stop");
    }
  }
  if (options.stop_token_ids.size() > static_cast<size_t>(kStopTokenIdsMax)) {
    return TooMany("stop_token_ids", options.stop_token_ids.size(), kStopTokenIdsMax);
  }
  for (const TokenId id : options.stop_token_ids) {
    BW_RETURN_IF_ERROR(CheckTokenId("stop_token_ids", id, limits.vocab));
  }
  return absl::OkStatus();
}

absl::Status PromptTooLong(absl::string_view tokens, bool score, const RequestLimits& limits) {
  const absl::Status status =
      AboutField(absl::StrCat("prompt has ", tokens, " tokens, but the context holds ", limits.context_tokens,
                              score ? "" : " including the answer", ": shorten the prompt"),
                 "prompt");
  return WithCode(status, kContextLengthExceeded);
}

}  // namespace

absl::Status Validate(const GenerationOptions& options, const RequestLimits& limits) {
  if (options.max_tokens && *options.max_tokens < 1)
    return NotAllowed("max_tokens", *options.max_tokens, "1 or more");
  if (options.min_tokens && *options.min_tokens < 0)
    return NotAllowed("min_tokens", *options.min_tokens, "0 or more");
  if (options.min_tokens && options.max_tokens && *options.min_tokens > *options.max_tokens) {
    return NotAllowed("min_tokens", *options.min_tokens,
                      absl::StrCat("at most max_tokens, ", *options.max_tokens));
  }
  BW_RETURN_IF_ERROR(ValidateSampling(options, limits));
  BW_RETURN_IF_ERROR(ValidateStops(options, limits));
  BW_RETURN_IF_ERROR(CheckInteger("logprobs", options.logprobs, 0, kLogprobsMax));
  return CheckInteger("n", options.n, 1, kChoicesMax);
}

int64_t PromptTokensMax(bool score, const RequestLimits& limits) {
  return limits.context_tokens - (score ? 0 : 1);
}

absl::Status PromptTooLong(bool score, const RequestLimits& limits) {
  return PromptTooLong(absl::StrCat("more than ", PromptTokensMax(score, limits)), score, limits);
}

absl::Status ValidatePrompt(absl::Span<const TokenId> prompt, bool score, const RequestLimits& limits) {
  if (prompt.empty()) return AboutField("prompt is empty: at least one token is needed", "prompt");
  if (static_cast<int64_t>(prompt.size()) > PromptTokensMax(score, limits)) {
    return PromptTooLong(absl::StrCat(prompt.size()), score, limits);
  }
  for (const TokenId id : prompt) BW_RETURN_IF_ERROR(CheckTokenId("prompt", id, limits.vocab));
  return absl::OkStatus();
}

absl::Status ValidateRequestId(const std::string& id) {
  if (!id.empty() && id.size() <= kRequestIdBytesMax && IsPlainWord(id)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("x-request-id must have 1 to ", kRequestIdBytesMax,
                                                 " printable ASCII characters without spaces"));
}

absl::Status AddStopTokens(const Tokenizer& tokenizer, EngineRequest* request) {
  for (const std::string& stop : request->stop) {
    const absl::StatusOr<std::vector<TokenId>> ids =
        tokenizer.Encode(stop, {.add_special_tokens = false, .parse_special_tokens = true});
    if (!ids.ok()) continue;  // then no token is spelled there
    for (const TokenId id : *ids) {
      const std::string_view piece = tokenizer.TokenPiece(id);
      if (!tokenizer.IsSpecial(id) || stop.find(piece) == std::string::npos) continue;
      if (piece != stop) {
        return AboutField(absl::StrCat("stop holds ", Quoted(stop), ", but the special token ", Quoted(piece),
                                       " never shows in a text: use stop_token_ids with ", id),
                          "stop");
      }
      request->stop_token_ids.push_back(id);
    }
  }
  return absl::OkStatus();
}

void ApplyOptions(const GenerationOptions& options, const RequestLimits& limits, EngineRequest* request) {
  const int32_t room =
      std::max<int32_t>(1, limits.context_tokens - static_cast<int32_t>(request->prompt.size()));
  request->max_tokens = std::min(room, options.max_tokens.value_or(kDefaultMaxTokens));
  request->choices = options.n.value_or(1);
  request->seed = options.seed;
  request->stop = options.stop;
  request->stop_token_ids = options.stop_token_ids;
  request->ignore_eos = options.ignore_eos;
  SamplingOptions& sampling = request->sampling;
  sampling.temperature = options.temperature.value_or(sampling.temperature);
  sampling.top_k = options.top_k.value_or(sampling.top_k);
  sampling.top_p = options.top_p.value_or(sampling.top_p);
  sampling.min_p = options.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = options.repetition_penalty.value_or(sampling.repetition_penalty);
  sampling.presence_penalty = options.presence_penalty.value_or(sampling.presence_penalty);
  sampling.frequency_penalty = options.frequency_penalty.value_or(sampling.frequency_penalty);
  sampling.logit_bias = options.logit_bias;
  sampling.min_tokens = options.min_tokens.value_or(0);
  sampling.logprobs = options.logprobs.value_or(-1);
}

}  // namespace bellwether
