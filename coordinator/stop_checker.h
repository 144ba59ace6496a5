#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "coordinator/engine.h"
#include "model/tokenizer/incremental_detokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// Finds the first of several stop strings in a text that comes in pieces, and holds back what may be the
// start of one. Of stop strings that overlap, the one that is complete first wins; of those complete at the
// same byte, the longest. Cost: bytes of text times stop strings.
class StopMatcher {
 public:
  // Empty stop strings never match.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Appends to `out` the text that is certain to stand before any stop string. True once one is complete: the
  // text ends before it, and no more may be pushed.
  bool Push(std::string_view text, std::string* out);
  // Gives up what is held back: no more text comes.
  std::string Flush();

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // Knuth-Morris-Pratt: longest proper border of the first i bytes
    size_t matched = 0;
  };
  std::vector<Pattern> patterns_;
  std::string held_;
};

// Decides for one sequence when it ends and which text may be shown. Pure; every stop decision is made here.
class StopChecker {
 public:
  struct Options {
    std::vector<TokenId> ending_tokens;  // end with kStop; their text is not emitted
    std::vector<std::string> stop;       // valid UTF-8
    int32_t tokens_min = 0;  // stop strings are not looked for in the text of the tokens before this many
    int32_t tokens_max = 0;  // >= 1: kLength at this many
  };
  struct Verdict {
    std::string text;  // valid UTF-8
    std::optional<FinishReason> finish;
    bool ending_token = false;  // the token is one of those, and the text none of its
  };

  // `tokenizer` may be null: all text is empty and stop strings are never found. It outlives this object.
  StopChecker(const Tokenizer* tokenizer, Options options);

  // The next generated token. Nothing may be pushed after a finish.
  Verdict Push(TokenId token);
  // The text held back, when the sequence ends for another reason.
  std::string Flush();

  int32_t tokens() const { return tokens_; }

 private:
  Options options_;
  std::optional<IncrementalDetokenizer> detokenizer_;
  StopMatcher matcher_;
  int32_t tokens_ = 0;
};

}  // namespace bellwether
