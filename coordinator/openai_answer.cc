#include "coordinator/openai_answer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

// Null unless the answer ended as it may; other ends are errors.
Json FinishJson(const std::optional<FinishReason>& finish) {
  if (finish == FinishReason::kStop) return "stop";
  if (finish == FinishReason::kLength) return "length";
  return nullptr;
}

Json UsageJson(const Usage& usage) {
  return Json::object(
      {{"prompt_tokens", usage.prompt_tokens},
       {"completion_tokens", usage.generated_tokens},
       {"total_tokens", usage.prompt_tokens + usage.generated_tokens},
       {"prompt_tokens_details", Json::object({{"cached_tokens", usage.cached_prompt_tokens}})}});
}

Json SeedJson(uint64_t seed) { return absl::StrCat(seed); }  // as numbers of JSON lose digits

Json TokenJson(std::string_view bytes, float logprob) {
  Json numbers = Json::array();
  for (const char byte : bytes) numbers.push_back(static_cast<uint8_t>(byte));
  return Json::object({{"token", Printable(bytes)}, {"logprob", logprob}, {"bytes", std::move(numbers)}});
}

}  // namespace

std::vector<size_t> TextOffsets(const std::vector<ShownToken>& tokens, size_t offset) {
  std::string text;
  for (const ShownToken& token : tokens) text += token.bytes;
  const auto completes = [](char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; };
  size_t at = offset == 0 ? 0 : std::find_if_not(text.begin(), text.end(), completes) - text.begin();
  std::vector<size_t> offsets;
  offsets.reserve(tokens.size() + 1);
  size_t begin = 0;
  for (size_t i = 0; i <= tokens.size(); ++i) {
    for (; at < begin; ++offset) at += ReadUtf8(std::string_view(text).substr(at)).length;
    offsets.push_back(offset);
    if (i < tokens.size()) begin += tokens[i].bytes.size();
  }
  return offsets;
}

OpenAiAnswer::OpenAiAnswer(const Tokenizer* tokenizer, Options options)
    : tokenizer_(tokenizer), options_(std::move(options)) {
  const char* object = "text_completion";
  if (options_.chat) object = options_.stream ? "chat.completion.chunk" : "chat.completion";
  head_ = WriteJson(Json::object({{"id", absl::StrCat(options_.chat ? "chatcmpl-" : "cmpl-", options_.id)},
                                  {"object", object},
                                  {"created", options_.created},
                                  {"model", options_.model},
                                  {"system_fingerprint", options_.fingerprint}}));
  head_.pop_back();  // the brace
}

std::string OpenAiAnswer::Whole(const std::vector<OpenAiChoice>& choices, const Usage& usage,
                                const std::vector<uint64_t>& seeds) const {
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice = ChoiceJson(choices[i]);
    // Of several prompts each has drawn its own.
    if (seeds.size() > 1) choice["seed"] = SeedJson(seeds[i * seeds.size() / choices.size()]);
    list.push_back(std::move(choice));
  }
  Json rest = Json::object({{"usage", UsageJson(usage)}});
  if (seeds.size() == 1) rest["seed"] = SeedJson(seeds[0]);
  return Object(list, rest);
}

std::string OpenAiAnswer::Piece(const OpenAiChoice& choice, std::optional<uint64_t> seed) const {
  Json json = ChoiceJson(choice);
  if (seed) json["seed"] = SeedJson(*seed);
  return Object(Json::array({std::move(json)}),
                options_.usage_in_pieces ? Json::object({{"usage", nullptr}}) : Json::object());
}

std::string OpenAiAnswer::UsagePiece(const Usage& usage) const {
  return Object(Json::array(), Json::object({{"usage", UsageJson(usage)}}));
}

std::string OpenAiAnswer::Object(const Json& choices, const Json& rest) const {
  std::string text = absl::StrCat(head_, ",\"choices\":", WriteJson(choices));
  for (const auto& [name, value] : rest.items()) absl::StrAppend(&text, ",\"", name, "\":", WriteJson(value));
  text += '}';
  return text;
}

Json OpenAiAnswer::ChoiceJson(const OpenAiChoice& choice) const {
  Json json = Json::object({{"index", choice.index}});
  if (!options_.chat) {
    json["text"] = choice.text;
    json["logprobs"] = options_.logprobs ? CompletionLogprobs(choice.tokens, choice.text_offset) : Json();
  } else {
    Json message = Json::object();
    if (choice.first) message["role"] = "assistant";
    if (!options_.stream || !choice.text.empty() || choice.first) message["content"] = choice.text;
    if (!options_.stream) message["refusal"] = nullptr;
    json[options_.stream ? "delta" : "message"] = std::move(message);
    json["logprobs"] = options_.logprobs ? ChatLogprobs(choice.tokens) : Json();
  }
  json["finish_reason"] = FinishJson(choice.finish);
  return json;
}

Json OpenAiAnswer::ChatLogprobs(const std::vector<ShownToken>& tokens) const {
  Json content = Json::array();
  for (const ShownToken& token : tokens) {
    Json json = TokenJson(token.bytes, token.output.logprob);
    Json top = Json::array();
    for (const TokenLogprob& likely : token.output.top) {
      top.push_back(TokenJson(tokenizer_->TokenBytes(likely.token), likely.logprob));
    }
    json["top_logprobs"] = std::move(top);
    content.push_back(std::move(json));
  }
  return Json::object({{"content", std::move(content)}, {"refusal", nullptr}});
}

Json OpenAiAnswer::CompletionLogprobs(const std::vector<ShownToken>& tokens, size_t offset) const {
  Json texts = Json::array(), logprobs = texts, tops = texts;
  for (const ShownToken& token : tokens) {
    const std::string shown = Printable(token.bytes);
    texts.push_back(shown);
    logprobs.push_back(token.output.logprob);
    Json top = Json::object();
    for (const TokenLogprob& likely : token.output.top) {
      const std::string text = Printable(tokenizer_->TokenBytes(likely.token));
      if (!top.contains(text)) top[text] = likely.logprob;
    }
    if (!top.contains(shown)) top[shown] = token.output.logprob;
    // Of a prompt's first token nothing is known.
    tops.push_back(std::isnan(token.output.logprob) ? Json() : std::move(top));
  }
  std::vector<size_t> offsets = TextOffsets(tokens, offset);
  offsets.pop_back();
  return Json::object({{"text_offset", std::move(offsets)},
                       {"token_logprobs", std::move(logprobs)},
                       {"tokens", std::move(texts)},
                       {"top_logprobs", std::move(tops)}});
}

}  // namespace bellwether
