#include "model/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
// A step of the matcher is a few nanoseconds; patterns of real tokenizers need some hundreds of steps a
// match.
constexpr uint32_t kMatchSteps = 20'000'000;
constexpr uint32_t kMatchHeapKib = 64 << 10;

std::string Quoted(std::string_view pattern) {
  return absl::StrCat("pattern \"", ToValidUtf8(pattern), "\"");
}

// The members of \s inside a class. PCRE2's own \s also has U+180E, which left White_Space in Unicode 6.3.
constexpr const char* kWhitespaceMembers = "\\p{Z}\\t-\\r\\x{85}";

}  // namespace

absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern) {
  std::string out;
  int depth = 0;             // of nested classes
  bool class_start = false;  // a ']' here is a member
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const bool at_class_start = std::exchange(class_start, false);
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        absl::StrAppend(&out, depth > 0 ? "" : "[", kWhitespaceMembers, depth > 0 ? "" : "]");
      } else if (escaped == 'S' && depth == 0) {
        absl::StrAppend(&out, "[^", kWhitespaceMembers, "]");
      } else if (escaped == 'h') {
        out += depth > 0 ? "0-9a-fA-F" : "[0-9a-fA-F]";
      } else {
        out += {c, escaped};
      }
    } else if (c == '[' && depth == 0) {
      depth = 1;
      class_start = true;
      out += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
    } else if (c == '[' && i + 1 < pattern.size() && pattern[i + 1] == ':') {
      const size_t end = pattern.find(":]", i + 2);
      if (end == std::string_view::npos)
        return absl::InvalidArgumentError(Quoted(pattern) + ": \"[:\" without \":]\"");
      out += pattern.substr(i, end + 2 - i);
      i = end + 1;
    } else if (c == '[') {
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') {
        return absl::UnimplementedError(Quoted(pattern) +
                                        ": a negated class within a class is not supported");
      }
      ++depth;
    } else if (c == ']' && depth > 0 && !at_class_start) {
      if (--depth == 0) out += c;
    } else if (c == '&' && depth > 0 && i + 1 < pattern.size() && pattern[i + 1] == '&') {
      return absl::UnimplementedError(Quoted(pattern) + ": an intersection of classes is not supported");
    } else {
      out += c;
    }
  }
  return out;
}

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a pattern of ", pattern.size(),
                                                   " bytes is longer than the limit of ", kMaxPatternBytes));
  }
  BW_ASSIGN_OR_RETURN(const std::string translated, OnigurumaToPcre2(pattern));
  auto code = std::make_unique<Code>();
  code->pattern = pattern;
  int error = 0;
  PCRE2_SIZE where = 0;
  // Ruby's ^ and $ stand at every line; \C would tear characters apart.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options,
                             &error, &where, nullptr);
  if (code->code == nullptr) {
    PCRE2_UCHAR message[128] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(pattern), ": ", reinterpret_cast<const char*>(message), " at byte ", where));
  }
  // Where there is no just-in-time compiler, matching interprets the pattern instead.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

struct Regex::Matches::State {
  const Code* code;
  std::string_view text;
  size_t at = 0;
  pcre2_match_data* data;
  pcre2_match_context* context;
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
};

Regex::Matches::Matches(const Regex& regex, std::string_view text) : state_(std::make_unique<State>()) {
  state_->code = regex.code_.get();
  state_->text = text;
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(state_->context, kMatchSteps);
  pcre2_set_heap_limit(state_->context, kMatchHeapKib);
}
Regex::Matches::~Matches() = default;

absl::StatusOr<std::optional<Regex::Matches::Match>> Regex::Matches::Next() {
  State& s = *state_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(s.text.data());
  while (s.at < s.text.size()) {
    // The text is known to be valid; checking it again for each match would take quadratic time.
    const auto match = [&](uint32_t options) {
      return pcre2_match(s.code->code, subject, s.text.size(), s.at, PCRE2_NO_UTF_CHECK | options, s.data,
                         s.context);
    };
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::InvalidArgumentError(absl::StrCat("the ", Quoted(s.code->pattern),
                                                     " cannot split this text (PCRE2 error ", result, ")"));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(s.data);
    const Match found{range[0], range[1]};
    if (found.end > found.begin) {
      s.at = found.end;
      return std::optional<Match>(found);
    }
    s.at = found.end + ReadUtf8(s.text.substr(found.end)).length;
    if (found.end >= s.text.size()) break;
  }
  s.at = s.text.size();
  return std::optional<Match>();
}

}  // namespace bellwether
