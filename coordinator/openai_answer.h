#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "coordinator/engine.h"
#include "coordinator/shown_tokens.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// Answers as OpenAI's clients read them. Pure.

// A choice, or what a piece of a stream adds to one.
struct OpenAiChoice {
  int32_t index = 0;
  std::string text;
  bool first = true;               // nothing of the choice has been sent before
  std::vector<ShownToken> tokens;  // with log-probabilities
  size_t text_offset = 0;          // characters of the choice's text before `tokens`
  std::optional<FinishReason> finish;
};

class OpenAiAnswer {
 public:
  struct Options {
    bool chat = false;
    bool stream = false;
    bool logprobs = false;  // were asked for
    bool usage_in_pieces = false;
    std::string id;           // of the request
    int64_t created = 0;      // seconds since 1970
    std::string model;        // as the client calls it
    std::string fingerprint;  // of the numerics
  };
  OpenAiAnswer(const Tokenizer* tokenizer, Options options);

  // A whole answer. `seeds`: of the prompts, each of which has equally many of the choices; or none.
  std::string Whole(const std::vector<OpenAiChoice>& choices, const Usage& usage,
                    const std::vector<uint64_t>& seeds) const;
  // A piece of a stream.
  std::string Piece(const OpenAiChoice& choice, std::optional<uint64_t> seed = std::nullopt) const;
  // The last piece, where the usage was asked for.
  std::string UsagePiece(const Usage& usage) const;

 private:
  Json ChoiceJson(const OpenAiChoice& choice) const;
  Json ChatLogprobs(const std::vector<ShownToken>& tokens) const;
  Json CompletionLogprobs(const std::vector<ShownToken>& tokens, size_t offset) const;
  std::string Object(const Json& choices, const Json& rest) const;

  const Tokenizer* const tokenizer_;
  const Options options_;
  std::string head_;  // of every object: what does not change
};

// Where in the text that the tokens make up each of them begins, and the next one would, counted in
// characters: of a prompt's bytes that are no UTF-8 the text has U+FFFD. `offset`: of the first one, which
// may complete a character that has been counted.
std::vector<size_t> TextOffsets(const std::vector<ShownToken>& tokens, size_t offset);

}  // namespace bellwether
