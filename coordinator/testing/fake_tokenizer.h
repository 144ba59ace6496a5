#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// For tests of the coordinator: token i stands for the bytes words[i]; empty words are special tokens.
// Encoding takes the longest word that fits.
class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> words) : words_(std::move(words)) {}

  absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                    bool /*add_special_tokens*/,
                                                    const EncodeLimits& /*limits*/) const override {
    std::string text;
    for (const TextPiece& piece : pieces) text += piece.text;
    std::vector<TokenId> ids;
    for (size_t at = 0; at < text.size();) {
      TokenId best = -1;
      for (TokenId id = 0; id < vocab_size(); ++id) {
        const std::string& word = words_[id];
        if (word.empty() || text.compare(at, word.size(), word) != 0) continue;
        if (best < 0 || word.size() > words_[best].size()) best = id;
      }
      if (best < 0) return absl::InvalidArgumentError("no word for " + text.substr(at));
      ids.push_back(best);
      at += words_[best].size();
    }
    return ids;
  }
  size_t FewestTokens(std::string_view /*text*/) const override { return 0; }
  std::string_view TokenBytes(TokenId id) const override {
    return id >= 0 && id < vocab_size() ? std::string_view(words_[id]) : std::string_view();
  }
  std::string_view TokenPiece(TokenId id) const override { return TokenBytes(id); }
  bool IsSpecial(TokenId id) const override { return id >= 0 && id < vocab_size() && words_[id].empty(); }
  int32_t vocab_size() const override { return static_cast<int32_t>(words_.size()); }
  std::optional<TokenId> bos_id() const override { return std::nullopt; }
  const std::vector<TokenId>& eos_ids() const override { return eos_ids_; }
  std::optional<TokenId> FindToken(std::string_view) const override { return std::nullopt; }
  bool strips_leading_space() const override { return false; }

 private:
  std::vector<std::string> words_;
  std::vector<TokenId> eos_ids_;
};

}  // namespace bellwether
