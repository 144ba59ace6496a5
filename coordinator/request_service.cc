#include "coordinator/request_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/defaults.h"
#include "common/status.h"
#include "coordinator/prompt_log.h"

namespace bellwether {
namespace {

// Of texts that nobody asks the model about; what a client can send may be far more.
constexpr size_t kTextTokensMax = size_t{1} << 20;
absl::Status TooManyTokens() {
  return absl::InvalidArgumentError(
      absl::StrCat("more than ", kTextTokensMax, " tokens at once: send the text in parts"));
}

}  // namespace

RequestService::RequestService(Options options)
    : options_(std::move(options)), pool_({.threads = options_.tokenizer_threads}) {}

absl::StatusOr<std::string> RequestService::ClientOf(std::string_view authorization) const {
  if (options_.api_keys == nullptr) return std::string();
  return options_.api_keys->NameOf(authorization);
}

// -- Reading

absl::Status RequestService::NeedTokenizer() const {
  if (options_.tokenizer != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("the model has no tokenizer: give token ids instead of text");
}

StopReading RequestService::Pausing(const StopReading& stop) const {
  return [this, &stop]() -> absl::Status {
    BW_RETURN_IF_ERROR(stop());
    pool_.GiveWay();
    return absl::OkStatus();
  };
}

EncodeLimits RequestService::PromptLimits(bool score, const StopReading& stop) const {
  return {.tokens_max = static_cast<size_t>(PromptTokensMax(score, options_.limits)), .stop = Pausing(stop)};
}

absl::StatusOr<std::vector<TokenId>> RequestService::PromptTokens(PromptInput prompt, bool score,
                                                                  const StopReading& stop) const {
  if (prompt.token_ids) return *std::move(prompt.token_ids);
  BW_RETURN_IF_ERROR(NeedTokenizer());
  absl::StatusOr<std::vector<TokenId>> tokens = options_.tokenizer->Encode(
      *prompt.text,
      {.add_special_tokens = !prompt.no_special_tokens, .parse_special_tokens = prompt.parse_special_tokens},
      PromptLimits(score, stop));
  if (absl::IsOutOfRange(tokens.status())) return PromptTooLong(score, options_.limits);
  return tokens;
}

absl::StatusOr<EngineRequest> RequestService::MakeRequest(const GenerateInput& input,
                                                          const StopReading& stop) const {
  BW_RETURN_IF_ERROR(Validate(input.options, options_.limits));
  EngineRequest request;
  BW_ASSIGN_OR_RETURN(request.prompt, PromptTokens(input.prompt, /*score=*/false, stop));
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/false, options_.limits));
  ApplyOptions(input.options, options_.limits, &request);
  if (options_.tokenizer != nullptr) BW_RETURN_IF_ERROR(AddStopTokens(*options_.tokenizer, &request));
  return request;
}

absl::StatusOr<EngineRequest> RequestService::MakeRequest(const ChatInput& input,
                                                          const StopReading& stop) const {
  BW_RETURN_IF_ERROR(Validate(input.options, options_.limits));
  BW_RETURN_IF_ERROR(NeedTokenizer());
  if (input.messages.size() > static_cast<size_t>(kChatMessagesMax)) {
    return absl::InvalidArgumentError(absl::StrCat("messages has ", input.messages.size(),
                                                   " entries, allowed are at most ", kChatMessagesMax));
  }
  BW_ASSIGN_OR_RETURN(const RenderedChat chat, RenderChat(*options_.chat_template, input.messages));
  absl::StatusOr<EncodedChat> encoded =
      EncodeChat(chat, *options_.tokenizer, PromptLimits(/*score=*/false, stop));
  if (absl::IsOutOfRange(encoded.status())) return PromptTooLong(/*score=*/false, options_.limits);
  BW_RETURN_IF_ERROR(encoded.status());
  EngineRequest request;
  request.prompt = std::move(encoded->prompt);
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/false, options_.limits));
  ApplyOptions(input.options, options_.limits, &request);
  BW_RETURN_IF_ERROR(AddStopTokens(*options_.tokenizer, &request));
  if (options_.template_stop) {
    request.stop.insert(request.stop.end(), encoded->stop.begin(), encoded->stop.end());
  }
  // The template's end of a turn is as good as an end-of-sequence token.
  if (!input.options.ignore_eos) {
    request.stop_token_ids.insert(request.stop_token_ids.end(), encoded->stop_token_ids.begin(),
                                  encoded->stop_token_ids.end());
  }
  return request;
}

absl::StatusOr<EngineRequest> RequestService::MakeScoreRequest(PromptInput prompt,
                                                               const StopReading& stop) const {
  EngineRequest request;
  BW_ASSIGN_OR_RETURN(request.prompt, PromptTokens(std::move(prompt), /*score=*/true, stop));
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/true, options_.limits));
  request.score = true;
  return request;
}

absl::StatusOr<std::vector<TokenId>> RequestService::Tokenize(std::string_view text,
                                                              const EncodeOptions& options,
                                                              const StopReading& stop) const {
  BW_RETURN_IF_ERROR(NeedTokenizer());
  absl::StatusOr<std::vector<TokenId>> ids =
      options_.tokenizer->Encode(text, options, {.tokens_max = kTextTokensMax, .stop = Pausing(stop)});
  if (absl::IsOutOfRange(ids.status())) return TooManyTokens();
  return ids;
}

absl::StatusOr<std::string> RequestService::Detokenize(absl::Span<const TokenId> ids,
                                                       bool skip_special) const {
  BW_RETURN_IF_ERROR(NeedTokenizer());
  if (ids.size() > kTextTokensMax) return TooManyTokens();
  for (const TokenId id : ids) {
    if (id >= 0 && id < options_.limits.vocab) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token_ids holds token id ", id, ", allowed is 0 to ", options_.limits.vocab - 1));
  }
  return options_.tokenizer->Decode(ids, skip_special);
}

// -- The pool

bool RequestService::TryPost(size_t text_bytes, std::function<void()> task) {
  return pool_.TryPost(text_bytes, std::move(task));
}

size_t RequestService::ReadingBytes(std::string_view text) const {
  if (options_.tokenizer == nullptr) return 0;
  const size_t fewest = options_.tokenizer->FewestTokens(text);
  return fewest > static_cast<size_t>(options_.limits.context_tokens) ? 0 : text.size();
}

void RequestService::LogEnd(const LogFields& fields, const absl::Status& status) {
  if (status.ok()) return Log(LogLevel::kDebug, "request is done", fields);
  if (const auto more = ends_.Admit()) {
    Log(LogLevel::kInfo, absl::StrCat("request ended: ", status.ToString(), AndLikeIt(*more)), fields);
  }
}

std::shared_ptr<RequestObserver> RequestService::Overhear(const EngineRequest& request, LogFields fields,
                                                          std::shared_ptr<RequestObserver> observer) const {
  if (!options_.log_prompts) return observer;
  return LogPrompts(request, options_.tokenizer, std::move(fields), std::move(observer));
}

}  // namespace bellwether
