#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "model/tokenizer/bytes_map.h"

namespace bellwether {

// Finds which of a set of words stands at a place in a text. Cost: one hash look-up for each length that a
// word with the same first byte has.
class LongestMatch {
 public:
  struct Match {
    size_t length;  // bytes
    TokenId id;
  };

  // An empty word is ignored; a word added twice keeps its first id.
  void Add(std::string_view word, TokenId id);
  bool empty() const { return words_.empty(); }

  // The longest word that `text` starts with and that `accept(match)` agrees to.
  template <typename Accept>
  std::optional<Match> Find(std::string_view text, Accept accept) const {
    if (text.empty()) return std::nullopt;
    for (const size_t length : lengths_[static_cast<unsigned char>(text[0])]) {
      if (length > text.size()) continue;
      const auto found = words_.find(text.substr(0, length));
      if (found == words_.end()) continue;
      const Match match{length, found->second};
      if (accept(match)) return match;
    }
    return std::nullopt;
  }

 private:
  BytesMap<TokenId> words_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte, longest first
};

}  // namespace bellwether
