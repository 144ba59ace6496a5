#pragma once

#include <string>

namespace bellwether {

// A checkpoint with random fp32 weights, a real tokenizer and a chat template, as a Hugging Face directory:
// for tests that need text. Its answers are nonsense of all kinds of tokens, also parts of characters.
// Removed with the object.
class TinyCheckpoint {
 public:
  // `tokenizer`: a folder of tests/goldens/tokenizer with a vocabulary of at most kVocab; `chat_template`
  // goes into tokenizer_config.json, empty for none.
  TinyCheckpoint(const std::string& tokenizer, const std::string& chat_template);
  ~TinyCheckpoint();
  TinyCheckpoint(const TinyCheckpoint&) = delete;

  const std::string& path() const { return path_; }
  // Makes the embedding of `token` NaN.
  void DamageEmbedding(int token);
  static constexpr int kVocab = 420;
  static constexpr int kContext = 2048;

 private:
  std::string path_;
};

}  // namespace bellwether
