#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "common/step.h"
#include "coordinator/engine.h"
#include "model/tokenizer/incremental_detokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// A token of an answer, as far as it shows in the text.
struct ShownToken {
  StepOutput output;  // the token and its log-probabilities
  std::string bytes;  // what it adds to the text; perhaps a part of a character
};

// Which tokens the text of a choice consists of: of chunks that carry log-probabilities, those whose text has
// been shown. The bytes of all of them, joined, are the choice's text: those of a stop string are left out,
// of a token that the stop string begins in the rest is. Bytes that are no UTF-8 count for the last token of
// those that make U+FFFD out of them.
class ShownTokens {
 public:
  // Special tokens, which add nothing to the text, are left out or listed without bytes.
  enum class Special : uint8_t { kLeftOut, kListed };
  ShownTokens(const Tokenizer* tokenizer, Special special);  // the tokenizer outlives it

  // The choice's next chunk; none follows one with a finish.
  std::vector<ShownToken> Push(const TokenChunk& chunk);

 private:
  void Add(const StepOutput& output);
  // The tokens in group_ have `text`, and those that come have no part in it.
  void CloseGroup(const std::string& text);
  bool NextIsCertain(bool finished) const;

  const Tokenizer* const tokenizer_;
  const Special special_;
  IncrementalDetokenizer detokenizer_;
  // Tokens in the middle of a character, their own bytes, and what of them has become text.
  std::vector<ShownToken> group_;
  std::string group_bytes_, group_text_;
  std::deque<ShownToken> waiting_;  // for their text
  size_t text_bytes_ = 0;           // that came and that no token in front of waiting_ accounts for
};

}  // namespace bellwether
