#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/generation_options.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// How the authors of a family's models sample (their model cards and scripts). 0: they do not say; a
// temperature of 0 stays one where they say `greedy`.
struct CardParameters {
  double temperature = 0;
  int32_t top_k = 0;
  double top_p = 0;
  double repetition_penalty = 0;
  int32_t max_tokens = 0;
  int32_t min_tokens = 0;
  bool greedy = false;
};

// A family's way of writing a conversation as one text. Every space matters; docs/formats.md says where each
// comes from. The text of a conversation is: the system part, then each turn, then `prompt`.
struct ChatTemplate {
  const char* name;
  const char* user_before = "";
  const char* user_after = "";
  const char* assistant_before = "";
  const char* assistant_after = "";
  const char* prompt = "";  // opens the answer

  const char* start = "";               // before everything, whatever follows
  const char* system_before = nullptr;  // nullptr: the family has no place for a system message
  const char* system_after = "";
  const char* default_system =
      nullptr;  // the content where no system message is given; nullptr: no system part
  const char* user_after_system = nullptr;  // instead of user_before for the turn after a system part

  bool system_in_last_turn = false;  // the system part stands in the last turn, not in the first
  const char* thoughts_end =
      nullptr;  // a past answer is written from behind the last of these, if it has one

  bool add_special_tokens = true;  // BOS as the tokenizer says; false where the family has none or spells it
  bool trims = false;              // whitespace around contents is dropped
  bool any_order = false;          // turns need not alternate
  bool single_turn = false;
  std::array<const char*, 3> stop = {};  // stop strings besides EOS; unused places are nullptr
  // The tokens that mark turns, likewise. In the template's own text each is one token wherever the
  // vocabulary has it, special or not; in contents it is plain text; in an answer it ends the answer.
  std::array<const char*, 6> marks = {};
  CardParameters card = {};

  // `card`, as what a request may ask for.
  GenerationOptions CardOptions() const;
};

// All families, in the order of docs/formats.md. They live for the whole process.
absl::Span<const ChatTemplate> ChatTemplates();
// nullptr when there is none of that name.
const ChatTemplate* FindChatTemplate(std::string_view name);

// What is known of a checkpoint; leave empty what is not.
struct ChatTemplateHints {
  std::string architecture;   // as model/option_names.h has it: "llama", "bloom"
  std::string template_text;  // chat_template of tokenizer_config.json or GGUF tokenizer.chat_template
  std::string model_name;     // GGUF general.name
  // What the checkpoint's file or directory is called, the likeliest first (ModelNames). Known names count
  // only as whole words of these.
  std::vector<std::string> file_names;
  int64_t vocab_size = 0;
};
struct ChatTemplateChoice {
  const ChatTemplate* chosen = nullptr;  // never null: "none" when nothing tells
  std::string reason;                    // "its chat_template", "its name \"BELLE-7B-2M\"" ..., for people
  // The checkpoint carries a chat template of its own, which is of no known family.
  bool own_unrecognised = false;
};
ChatTemplateChoice ChooseChatTemplate(const ChatTemplateHints& hints);

struct PromptPiece {
  std::string text;
  bool parse_special_tokens = false;  // true for the template's own text, never for a message's content
};

struct RenderedChat {
  std::vector<PromptPiece> pieces;  // up to where the answer begins
  bool add_special_tokens = true;
  std::vector<std::string> stop;
  std::vector<std::string> marks;
  std::string Text() const;  // the pieces joined
};

// INVALID_ARGUMENT, naming the message: none at all, an unknown role, an order that the family cannot write.
absl::StatusOr<RenderedChat> RenderChat(const ChatTemplate& chat_template,
                                        absl::Span<const ChatMessage> messages);

struct EncodedChat {
  std::vector<TokenId> prompt;
  std::vector<TokenId> stop_token_ids;  // those of `marks` that the vocabulary has
  std::vector<std::string> stop;
};
// Errors as Tokenizer::EncodePieces'.
absl::StatusOr<EncodedChat> EncodeChat(const RenderedChat& chat, const Tokenizer& tokenizer,
                                       const EncodeLimits& limits = {});

}  // namespace bellwether
