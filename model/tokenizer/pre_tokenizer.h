#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "model/regex.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {

// Cuts a text into the stretches that merges may not cross. The steps run in order, each on the pieces of the
// one before. Broken UTF-8 is never matched by a pattern: a run of broken bytes is a piece of its own.
class PreTokenizer {
 public:
  struct Split {
    enum class Behaviour { kIsolated, kRemoved };  // matches become pieces, or vanish
    Regex regex;
    Behaviour behaviour = Behaviour::kIsolated;
    bool invert = false;  // what the pattern does not match counts as the match
  };
  // Every piece that does not start with a space gets one.
  struct PrefixSpace {};
  // Spaces become `mark`; a mark is put before the text; with `split`, each mark begins a piece.
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };  // kFirst: only at the very start of the whole text
    std::string mark = "\xE2\x96\x81";
    Prepend prepend = Prepend::kAlways;
    bool split = true;
  };
  using Step = std::variant<Split, PrefixSpace, Metaspace>;

  template <typename AStep>
  void Add(AStep step) {
    steps_.emplace_back(std::move(step));
  }
  const std::vector<Step>& steps() const { return steps_; }

  struct Pieces {
    std::vector<std::string_view> views;  // into the text or into `owned`; none is empty
    std::deque<std::string> owned;        // text that a step has made
  };
  // `progress` hears of the work, and its error ends it.
  absl::Status Apply(std::string_view text, bool at_start, EncodeProgress* progress, Pieces* pieces) const;
  // Of all steps together, on the bytes of all pieces.
  ByteEffect effect() const;

 private:
  std::vector<Step> steps_;
};

}  // namespace bellwether
