#include "model/tokenizer/longest_match.h"

#include <algorithm>
#include <functional>

namespace bellwether {

void LongestMatch::Add(std::string_view word, TokenId id) {
  if (word.empty() || !words_.emplace(std::string(word), id).second) return;
  std::vector<size_t>& lengths = lengths_[static_cast<unsigned char>(word[0])];
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), word.size(), std::greater<>());
  if (place == lengths.end() || *place != word.size()) lengths.insert(place, word.size());
}

}  // namespace bellwether
