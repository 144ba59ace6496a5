#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "model/tokenizer/encode_limits.h"

namespace bellwether {

// Rewrites a text before it is cut and encoded, step by step.
class TextNormalizer {
 public:
  struct Prepend {  // put before a text that is not empty
    std::string text;
  };
  struct Replace {  // every occurrence; `from` is not empty
    std::string from;
    std::string to;
  };
  struct ComposeNfc {};  // Unicode normalisation form C; broken bytes pass unchanged
  using Step = std::variant<Prepend, Replace, ComposeNfc>;

  template <typename AStep>
  void Add(AStep step) {
    steps_.emplace_back(std::move(step));
  }
  std::string Apply(std::string_view text) const;
  // Of all steps together.
  ByteEffect effect() const;

 private:
  std::vector<Step> steps_;
};

}  // namespace bellwether
