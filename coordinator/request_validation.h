#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/generation_options.h"
#include "common/ids.h"
#include "coordinator/engine.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// What a request may ask for, field by field. Errors are InvalidArgument; they name the field as
// inference.proto spells it (in the message and as request_error.h has it), what was given and what is
// allowed.

struct RequestLimits {
  int32_t vocab = 0;           // token ids are below this
  int32_t context_tokens = 0;  // prompt and output together
  bool has_tokenizer = false;
};

absl::Status Validate(const GenerationOptions& options, const RequestLimits& limits);

// Most tokens of a prompt to continue, or to score.
int64_t PromptTokensMax(bool score, const RequestLimits& limits);
// The error where the exact number is not known, as counting stopped there.
absl::Status PromptTooLong(bool score, const RequestLimits& limits);

// A prompt to continue (which leaves room for one token at least) or to score.
absl::Status ValidatePrompt(absl::Span<const TokenId> prompt, bool score, const RequestLimits& limits);

// Of x-request-id: short and printable, as it goes into log lines.
absl::Status ValidateRequestId(const std::string& id);

// A special token never shows in a text, so a stop string that spells one becomes an id to stop at as well.
// InvalidArgument: it spells one beside other text.
absl::Status AddStopTokens(const Tokenizer& tokenizer, EngineRequest* request);

// Fills in the fields of `request` that `options`, already valid, ask for; request->prompt is set.
void ApplyOptions(const GenerationOptions& options, const RequestLimits& limits, EngineRequest* request);

}  // namespace bellwether
