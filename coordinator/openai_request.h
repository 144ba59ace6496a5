#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/generation_options.h"
#include "common/json.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {

// A request to /v1/chat/completions or /v1/completions, read from JSON and not yet checked against the model.
// Names, defaults and ranges are OpenAI's, and vLLM's for what OpenAI lacks. Pure.
struct OpenAiRequest {
  bool chat = false;
  std::string model;
  std::vector<ChatMessage> messages;  // of a chat
  std::vector<PromptInput> prompts;   // else: one or more; choice c of prompt p has the index p x n + c
  GenerationOptions options;          // for each prompt; max_tokens is absent where no answer is wanted
  bool answers = true;                // false: `echo` alone
  bool echo = false;                  // the prompt is part of the answer's text
  bool stream = false;
  bool include_usage = false;  // a stream ends with the usage
};

// Prompts of one request.
inline constexpr size_t kPromptsMax = 256;

// Members that are unknown are passed over, as are those that change no answer (`user`, `metadata`); null is
// the same as absent. InvalidArgument, with its field (coordinator/request_error.h): a member of a wrong kind
// or out of range, or one that is known and not supported, unless its value asks for nothing (`tools: []`).
absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body);
absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body);

}  // namespace bellwether
