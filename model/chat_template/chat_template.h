#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// A family's way of writing a conversation as one text; the table is in chat_template.cc.
struct ChatTemplate;

// By name: "chatml", "smollm", "llama-2", "llama-3", "alpaca", "billa", "belle-llama", ..., "none".
// nullptr when there is none of that name.
const ChatTemplate* FindChatTemplate(std::string_view name);
std::string_view ChatTemplateName(const ChatTemplate& chat_template);
std::vector<std::string> ChatTemplateNames();

// What is known of a checkpoint; leave empty what is not.
struct ChatTemplateHints {
  std::string architecture;   // config.json model_type or GGUF general.architecture: "llama", "bloom"
  std::string template_text;  // chat_template of tokenizer_config.json or GGUF tokenizer.chat_template
  std::string path;           // of the checkpoint; known model names are looked for in its last two parts
  std::string model_name;     // GGUF general.name
  int64_t vocab_size = 0;
};
// Never nullptr: "none" when nothing tells.
const ChatTemplate* ChooseChatTemplate(const ChatTemplateHints& hints);

// chat_template of a checkpoint directory (chat_template.jinja or tokenizer_config.json), "" when it has
// none.
std::string ReadChatTemplateText(const std::string& dir);

struct PromptPiece {
  std::string text;
  bool parse_special_tokens = false;  // true for the template's own text, never for a message's content
};

struct RenderedChat {
  std::vector<PromptPiece> pieces;  // the prompt, ready for the assistant's answer
  bool add_special_tokens =
      true;                       // BOS as the tokenizer says; false where the template has none or spells it
  std::vector<std::string> stop;  // stop strings besides EOS
  std::vector<std::string> stop_tokens;  // special tokens that end the answer, by their spelling
  std::string Text() const;              // the pieces joined
};

// INVALID_ARGUMENT: no message, an unknown role, an order the family cannot write, or "none" with more than
// one turn.
absl::StatusOr<RenderedChat> RenderChat(const ChatTemplate& chat_template,
                                        absl::Span<const ChatMessage> messages);

struct EncodedChat {
  std::vector<TokenId> prompt;
  std::vector<TokenId> stop_token_ids;  // stop_tokens that the vocabulary has
  std::vector<std::string> stop;
};
absl::StatusOr<EncodedChat> EncodeChat(const RenderedChat& chat, const Tokenizer& tokenizer);

}  // namespace bellwether
