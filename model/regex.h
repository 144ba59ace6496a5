#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bellwether {

// A pattern in the dialect that tokenizer.json uses (Oniguruma, Ruby syntax), run by PCRE2. Immutable: one
// object serves any number of threads.
class Regex {
 public:
  // INVALID_ARGUMENT: not a pattern; UNIMPLEMENTED: a construct that PCRE2 reads in another way. Both quote
  // it.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Walks over the matches in one text, which must be valid UTF-8 and outlive this object.
  class Matches {
   public:
    Matches(const Regex& regex, std::string_view text);
    ~Matches();
    Matches(const Matches&) = delete;
    Matches& operator=(const Matches&) = delete;

    struct Match {
      size_t begin;
      size_t end;
    };
    // The next match that is not empty. INVALID_ARGUMENT when the text would cost the pattern too much.
    absl::StatusOr<std::optional<Match>> Next();

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

// The same pattern as PCRE2 spells it: unions of nested character classes are flattened, \s means exactly
// Unicode's White_Space, \h a hexadecimal digit. UNIMPLEMENTED: nested negated classes and intersections.
absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern);

}  // namespace bellwether
