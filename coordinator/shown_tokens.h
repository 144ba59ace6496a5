#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
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
  // Special and ending tokens, which add nothing to the text, are left out or listed without bytes.
  enum class Special : uint8_t { kLeftOut, kListed };
  ShownTokens(const Tokenizer* tokenizer, Special special);  // the tokenizer outlives it

  // The choice's next chunk; none follows one with a finish.
  std::vector<ShownToken> Push(const TokenChunk& chunk);

 private:
  struct Member {
    ShownToken token;  // its bytes are those it has if they become a character
    std::string text;  // what came of it, and of broken bytes before it, for certain
  };
  void Add(const StepOutput& output, bool has_text);
  // The members' bytes become no character: they have their text instead, and the last one `rest`.
  void BreakGroup(std::string_view rest);
  // What comes has no part in what the first so many members have.
  void Settle(size_t members);
  bool NextIsCertain(bool finished) const;

  const Tokenizer* const tokenizer_;
  const Special special_;
  IncrementalDetokenizer detokenizer_;
  std::vector<Member> group_;       // tokens in the middle of a character
  std::deque<ShownToken> waiting_;  // for their text
  size_t text_bytes_ = 0;           // that came and that no token in front of waiting_ accounts for
};

}  // namespace bellwether
