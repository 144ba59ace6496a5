#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "model/tokenizer/longest_match.h"

namespace bellwether {

// One token that is found in a text as it stands, before anything else is done to the text.
struct AddedToken {
  std::string text;
  TokenId id = -1;
  bool special = true;       // recognised only where special tokens are allowed
  bool lstrip = false;       // takes the whitespace on its left with it
  bool rstrip = false;       // ... on its right
  bool single_word = false;  // only where no character of a word adjoins
};

class AddedTokens {
 public:
  void Add(AddedToken token);
  bool empty() const { return by_id_.empty(); }
  bool Contains(TokenId id) const { return by_id_.contains(id); }

  // As TextEncoder's.
  size_t token_bytes_max() const { return token_bytes_max_; }

  struct Found {
    size_t begin;
    size_t end;
    TokenId id;
  };
  const AddedToken* Find(TokenId id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &found->second;
  }
  // The first added token of `text` at or after `from` that `accept(token, begin, end)` agrees to, the
  // longest one where several begin.
  template <typename Accept>
  std::optional<Found> FindNext(std::string_view text, size_t from, Accept accept) const {
    for (size_t at = from; at < text.size(); ++at) {
      const auto match = words_.Find(text.substr(at), [&](LongestMatch::Match m) {
        const AddedToken& token = by_id_.at(m.id);
        if (!accept(token, at, at + m.length)) return false;
        return !token.single_word || StandsAlone(text, at, at + m.length);
      });
      if (match) return Found{at, at + match->length, match->id};
    }
    return std::nullopt;
  }
  // A token that was found, with the whitespace that it takes with it; none that stands before `done`.
  Found WithWhitespace(std::string_view text, size_t done, Found found) const;

 private:
  static bool StandsAlone(std::string_view text, size_t begin, size_t end);

  LongestMatch words_;
  size_t token_bytes_max_ = 1;
  absl::flat_hash_map<TokenId, AddedToken> by_id_;
};

}  // namespace bellwether
