#pragma once

#include <string>
#include <string_view>

#include "common/ids.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// Turns tokens into text one by one. What it returns is always valid UTF-8: an unfinished character is held
// back until its last byte comes, and bytes that can no longer become a character give U+FFFD. The pieces
// joined are what Tokenizer::Decode gives for all the tokens. Pure and cheap to copy (at most three bytes are
// held).
class IncrementalDetokenizer {
 public:
  struct Options {
    // True when the first token begins a text. False after a prompt: then its leading space is part of the
    // answer.
    bool at_text_start = false;
    bool skip_special = true;  // else special tokens appear as they are spelled
  };

  // `tokenizer` must outlive this object.
  IncrementalDetokenizer(const Tokenizer* tokenizer, Options options);

  // The text that became certain with this token; often "".
  std::string Push(TokenId id);
  // Ends the text: U+FFFD when an unfinished character was held back, else "".
  std::string Flush();
  // The unfinished character.
  std::string_view held() const { return held_; }

 private:
  const Tokenizer* tokenizer_;
  bool strip_space_;
  bool skip_special_;
  std::string held_;  // the start of a character, at most 3 bytes
};

}  // namespace bellwether
