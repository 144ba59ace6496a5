#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

using Pieces = PreTokenizer::Pieces;

// Applies a Split to one stretch of valid UTF-8.
absl::Status SplitValid(const PreTokenizer::Split& split, std::string_view text, EncodeProgress* progress,
                        std::vector<std::string_view>* out) {
  const bool keep_matches = split.behaviour == PreTokenizer::Split::Behaviour::kIsolated || split.invert;
  const bool keep_gaps = split.behaviour == PreTokenizer::Split::Behaviour::kIsolated || !split.invert;
  Regex::Matches matches(split.regex, text);
  size_t done = 0;
  const auto gap_until = [&](size_t end) {
    if (keep_gaps && end > done) out->push_back(text.substr(done, end - done));
  };
  while (true) {
    BW_ASSIGN_OR_RETURN(const auto match, matches.Next());
    if (!match) break;
    BW_RETURN_IF_ERROR(progress->Advance(match->end - done));
    gap_until(match->begin);
    if (keep_matches) out->push_back(text.substr(match->begin, match->end - match->begin));
    done = match->end;
  }
  gap_until(text.size());
  return absl::OkStatus();
}

absl::Status ApplyStep(const PreTokenizer::Split& split, std::string_view piece, bool /*at_start*/,
                       EncodeProgress* progress, Pieces* out) {
  while (!piece.empty()) {
    const size_t valid = ValidUtf8Prefix(piece);
    if (valid > 0) BW_RETURN_IF_ERROR(SplitValid(split, piece.substr(0, valid), progress, &out->views));
    piece.remove_prefix(valid);
    size_t broken = 0;
    while (broken < piece.size()) {
      const Utf8Step step = ReadUtf8(piece.substr(broken));
      if (step.kind == Utf8Step::Kind::kCharacter) break;
      broken += step.length;
    }
    if (broken > 0) out->views.push_back(piece.substr(0, broken));
    piece.remove_prefix(broken);
  }
  return absl::OkStatus();
}

absl::Status ApplyStep(const PreTokenizer::PrefixSpace&, std::string_view piece, bool /*at_start*/,
                       EncodeProgress* /*progress*/, Pieces* out) {
  if (!piece.starts_with(' ')) piece = out->owned.emplace_back(" " + std::string(piece));
  out->views.push_back(piece);
  return absl::OkStatus();
}

absl::Status ApplyStep(const PreTokenizer::Metaspace& metaspace, std::string_view piece, bool at_start,
                       EncodeProgress* /*progress*/, Pieces* out) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  const std::string& mark = metaspace.mark;
  std::string& marked = out->owned.emplace_back();
  for (const char c : piece) c == ' ' ? marked.append(mark) : marked.append(1, c);
  const bool prepend =
      metaspace.prepend == Prepend::kAlways || (metaspace.prepend == Prepend::kFirst && at_start);
  if (prepend && !marked.starts_with(mark)) marked.insert(0, mark);
  std::string_view rest = marked;
  while (metaspace.split) {
    const size_t next = rest.find(mark, rest.starts_with(mark) ? mark.size() : 0);
    if (next == std::string_view::npos) break;
    if (next > 0) out->views.push_back(rest.substr(0, next));
    rest.remove_prefix(next);
  }
  if (!rest.empty()) out->views.push_back(rest);
  return absl::OkStatus();
}

ByteEffect EffectOf(const PreTokenizer::Split& split) {
  return split.behaviour == PreTokenizer::Split::Behaviour::kRemoved ? ByteEffect::kShrinks
                                                                     : ByteEffect::kKeeps;
}
ByteEffect EffectOf(const PreTokenizer::PrefixSpace&) { return ByteEffect::kKeeps; }
ByteEffect EffectOf(const PreTokenizer::Metaspace& metaspace) {
  return metaspace.mark.empty() ? ByteEffect::kShrinks : ByteEffect::kRewrites;
}

}  // namespace

ByteEffect PreTokenizer::effect() const {
  ByteEffect worst = ByteEffect::kKeeps;
  for (const Step& step : steps_) {
    worst = std::max(worst, std::visit([](const auto& s) { return EffectOf(s); }, step));
  }
  return worst;
}

absl::Status PreTokenizer::Apply(std::string_view text, bool at_start, EncodeProgress* progress,
                                 Pieces* pieces) const {
  pieces->views.clear();
  if (!text.empty()) pieces->views.push_back(text);
  for (const Step& step : steps_) {
    const std::vector<std::string_view> before = std::exchange(pieces->views, {});
    bool first = at_start;
    for (const std::string_view piece : before) {
      BW_RETURN_IF_ERROR(progress->Advance(piece.size()));
      BW_RETURN_IF_ERROR(
          std::visit([&](const auto& s) { return ApplyStep(s, piece, first, progress, pieces); }, step));
      first = false;
    }
  }
  return absl::OkStatus();
}

}  // namespace bellwether
