#include "model/chat_template/chat_template.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

// What Python's strip() drops: White_Space and the four separators U+001C to U+001F.
std::string_view DropLeadingSpace(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    const bool is_space =
        step.kind == Utf8Step::Kind::kCharacter &&
        (IsWhitespace(step.code_point) || (step.code_point >= 0x1C && step.code_point <= 0x1F));
    if (!is_space) break;
    text.remove_prefix(step.length);
  }
  return text;
}

std::string_view DropTrailingSpace(std::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;  // of the last character
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!DropLeadingSpace(text.substr(start)).empty()) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

// What is left of a past answer when the thoughts before it are forgotten.
std::string_view WithoutThoughts(const ChatTemplate& t, std::string_view content) {
  if (t.thoughts_end == nullptr) return content;
  const size_t at = content.rfind(t.thoughts_end);
  if (at == std::string_view::npos) return content;
  content.remove_prefix(at + std::string_view(t.thoughts_end).size());
  content.remove_prefix(std::min(content.find_first_not_of('\n'), content.size()));
  return content;
}

// Builds the pieces, joining neighbours of the same kind.
class Renderer {
 public:
  explicit Renderer(const ChatTemplate& chat_template) : template_(chat_template) { Own(template_.start); }

  void System(std::string_view content) {
    Own(template_.system_before);
    // Where the first turn continues the system part, only their outer ends are trimmed, and these are not
    // here.
    const bool trims = template_.trims && template_.user_after_system == nullptr;
    Given(trims ? DropTrailingSpace(DropLeadingSpace(content)) : content);
    Own(template_.system_after);
    after_system_ = true;
  }

  void User(std::string_view content) {
    const bool joins_system = std::exchange(after_system_, false) && template_.user_after_system != nullptr;
    Own(joins_system ? template_.user_after_system : template_.user_before);
    if (template_.trims && !joins_system) content = DropLeadingSpace(content);
    Given(template_.trims ? DropTrailingSpace(content) : content);
    Own(template_.user_after);
  }

  void Assistant(std::string_view content) {
    after_system_ = false;
    Own(template_.assistant_before);
    content = WithoutThoughts(template_, content);
    Given(template_.trims ? DropTrailingSpace(DropLeadingSpace(content)) : content);
    Own(template_.assistant_after);
  }

  RenderedChat Finish() {
    Own(template_.prompt);
    chat_.add_special_tokens = template_.add_special_tokens;
    for (const char* stop : template_.stop) {
      if (stop != nullptr) chat_.stop.push_back(stop);
    }
    for (const char* mark : template_.marks) {
      if (mark != nullptr) chat_.marks.push_back(mark);
    }
    return std::move(chat_);
  }

 private:
  void Own(std::string_view text) { Append(text, /*parse_special_tokens=*/true); }
  void Given(std::string_view text) { Append(text, /*parse_special_tokens=*/false); }
  void Append(std::string_view text, bool parse_special_tokens) {
    if (text.empty()) return;
    if (chat_.pieces.empty() || chat_.pieces.back().parse_special_tokens != parse_special_tokens) {
      chat_.pieces.push_back({"", parse_special_tokens});
    }
    chat_.pieces.back().text += text;
  }

  const ChatTemplate& template_;
  RenderedChat chat_;
  bool after_system_ = false;
};

absl::Status BadMessage(const ChatTemplate& chat_template, size_t index, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("messages[", index, "]: ", what, " (chat template ", chat_template.name, ")"));
}

absl::Status CheckOrder(const ChatTemplate& t, absl::Span<const ChatMessage> messages) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: at least one is needed");
  const char* expected = "user";
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system") {
      if (i > 0) return BadMessage(t, i, "only the first message may have the role system");
      if (t.system_before == nullptr)
        return BadMessage(t, i, "this family has no place for a system message");
      continue;
    }
    if (role != "user" && role != "assistant") {
      return BadMessage(t, i, "role " + Quoted(role) + " is none of system, user and assistant");
    }
    if (!t.any_order && role != expected) {
      return BadMessage(t, i, absl::StrCat("role ", role, " where a turn of ", expected, " must come"));
    }
    expected = role == "user" ? "assistant" : "user";
  }
  if (messages.back().role != "user") {
    return BadMessage(t, messages.size() - 1, "the last message must have the role user");
  }
  if (t.single_turn && messages.size() > 1) return BadMessage(t, 1, "only one message can be written");
  return absl::OkStatus();
}

}  // namespace

const ChatTemplate* FindChatTemplate(std::string_view name) {
  for (const ChatTemplate& chat_template : ChatTemplates()) {
    if (chat_template.name == name) return &chat_template;
  }
  return nullptr;
}

std::string RenderedChat::Text() const {
  std::string text;
  for (const PromptPiece& piece : pieces) text += piece.text;
  return text;
}

GenerationOptions ChatTemplate::CardOptions() const {
  GenerationOptions options;
  if (card.temperature > 0 || card.greedy) options.temperature = card.temperature;
  if (card.top_k > 0) options.top_k = card.top_k;
  if (card.top_p > 0) options.top_p = card.top_p;
  if (card.repetition_penalty > 0) options.repetition_penalty = card.repetition_penalty;
  if (card.max_tokens > 0) options.max_tokens = card.max_tokens;
  if (card.min_tokens > 0) options.min_tokens = card.min_tokens;
  return options;
}

absl::StatusOr<RenderedChat> RenderChat(const ChatTemplate& chat_template,
                                        absl::Span<const ChatMessage> messages) {
  BW_RETURN_IF_ERROR(CheckOrder(chat_template, messages));
  Renderer renderer(chat_template);
  const bool given = messages[0].role == "system";
  std::optional<std::string_view> system;
  if (chat_template.default_system != nullptr) system = chat_template.default_system;
  if (given) system = messages[0].content;
  const auto write_system = [&] {
    if (system.has_value()) renderer.System(*system);
  };
  if (!chat_template.system_in_last_turn) write_system();
  for (const ChatMessage& message : messages.subspan(given ? 1 : 0)) {
    if (chat_template.system_in_last_turn && &message == &messages.back()) write_system();
    if (message.role == "user") renderer.User(message.content);
    if (message.role == "assistant") renderer.Assistant(message.content);
  }
  return renderer.Finish();
}

absl::StatusOr<EncodedChat> EncodeChat(const RenderedChat& chat, const Tokenizer& tokenizer,
                                       const EncodeLimits& limits) {
  EncodedChat encoded;
  for (const std::string& mark : chat.marks) {
    if (const std::optional<TokenId> id = tokenizer.FindToken(mark)) encoded.stop_token_ids.push_back(*id);
  }
  std::vector<TextPiece> pieces;
  for (const PromptPiece& piece : chat.pieces) {
    pieces.push_back({piece.text, piece.parse_special_tokens, encoded.stop_token_ids});
  }
  BW_ASSIGN_OR_RETURN(encoded.prompt, tokenizer.EncodePieces(pieces, chat.add_special_tokens, limits));
  encoded.stop = chat.stop;
  return encoded;
}

}  // namespace bellwether
