#include "model/tokenizer/composed_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/tokenizer/bytes_map.h"

namespace bellwether {
namespace {

// The pieces of a text, joined, and where special tokens may stand in it.
class JoinedText {
 public:
  explicit JoinedText(absl::Span<const TextPiece> pieces) {
    for (const TextPiece& piece : pieces) {
      text_.append(piece.text);
      ends_.push_back({text_.size(), piece.parse_special_tokens});
    }
  }
  std::string_view text() const { return text_; }
  // Whether a special token may stand there: wholly within a piece that allows it.
  bool AllowsSpecial(size_t begin, size_t end) const {
    const auto after = [](size_t at, const End& piece) { return at < piece.end; };
    const auto piece = std::upper_bound(ends_.begin(), ends_.end(), begin, after);
    return piece != ends_.end() && piece->special && end <= piece->end;
  }

 private:
  struct End {
    size_t end;
    bool special;
  };
  std::string text_;
  std::vector<End> ends_;
};

// All marks that pieces name, each once.
std::vector<TokenId> MarksOf(absl::Span<const TextPiece> pieces) {
  std::vector<TokenId> marks;
  for (const TextPiece& piece : pieces) marks.insert(marks.end(), piece.marks.begin(), piece.marks.end());
  std::sort(marks.begin(), marks.end());
  marks.erase(std::unique(marks.begin(), marks.end()), marks.end());
  return marks;
}

class ComposedTokenizer final : public Tokenizer {
 public:
  explicit ComposedTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    by_piece_.reserve(parts_.entries.size());
    for (size_t id = 0; id < parts_.entries.size(); ++id) {
      const std::string& piece = parts_.entries[id].piece;
      if (!piece.empty()) by_piece_.emplace(piece, static_cast<TokenId>(id));
      mark_bytes_max_ = std::max(mark_bytes_max_, piece.size());
    }
    std::vector<TokenId> eos;
    for (const TokenId id : parts_.eos_ids) {
      if (Known(id) && std::find(eos.begin(), eos.end(), id) == eos.end()) eos.push_back(id);
    }
    parts_.eos_ids = std::move(eos);
    if (parts_.bos_id && !Known(*parts_.bos_id)) parts_.bos_id.reset();
  }

  absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                    bool add_special_tokens,
                                                    const EncodeLimits& limits) const override {
    size_t bytes = 0;
    for (const TextPiece& piece : pieces) {
      bytes += std::min(piece.text.size(), kMaxTextBytes + 1);
      if (bytes > kMaxTextBytes) {
        return absl::InvalidArgumentError(
            absl::StrCat("text is longer than the limit of ", kMaxTextBytes, " bytes: shorten it"));
      }
    }
    EncodeProgress progress(limits);
    if (add_special_tokens) progress.Push(parts_.prefix);
    const JoinedText joined(pieces);
    BW_RETURN_IF_ERROR(progress.Advance(0, FewestTokens(joined.text())));
    BW_RETURN_IF_ERROR(EncodeText(joined, MarksOf(pieces), &progress));
    if (add_special_tokens) progress.Push(parts_.suffix);
    BW_RETURN_IF_ERROR(progress.Advance(0));
    return progress.Take();
  }

  size_t FewestTokens(std::string_view text) const override {
    const size_t longest = std::max(parts_.encoder->token_bytes_max(), parts_.added.token_bytes_max());
    if (longest == kAnyBytes) return 0;
    return FewestTokensOf(parts_.encoder->LastingBytes(text), std::max(longest, mark_bytes_max_));
  }

  std::string_view TokenBytes(TokenId id) const override {
    return Known(id) ? parts_.entries[id].bytes : Nothing();
  }
  std::string_view TokenPiece(TokenId id) const override {
    return Known(id) ? parts_.entries[id].piece : Nothing();
  }
  bool IsSpecial(TokenId id) const override { return Known(id) && parts_.entries[id].special; }
  int32_t vocab_size() const override { return static_cast<int32_t>(parts_.entries.size()); }
  std::optional<TokenId> bos_id() const override { return parts_.bos_id; }
  const std::vector<TokenId>& eos_ids() const override { return parts_.eos_ids; }
  std::optional<TokenId> FindToken(std::string_view piece) const override {
    const auto found = by_piece_.find(piece);
    if (found == by_piece_.end()) return std::nullopt;
    return found->second;
  }
  bool strips_leading_space() const override { return parts_.strips_leading_space; }

 private:
  static const std::string& Nothing() {
    static const std::string nothing;
    return nothing;
  }
  bool Known(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < parts_.entries.size(); }

  // The marks as added tokens, with what the vocabulary's own say of the whitespace around them.
  AddedTokens AddMarks(absl::Span<const TokenId> ids) const {
    AddedTokens marks;
    for (const TokenId id : ids) {
      if (TokenPiece(id).empty()) continue;
      const AddedToken* own = parts_.added.Find(id);
      marks.Add(own != nullptr ? *own : AddedToken{.text = std::string(TokenPiece(id)), .id = id});
    }
    return marks;
  }

  absl::Status EncodeText(const JoinedText& joined, const std::vector<TokenId>& mark_ids,
                          EncodeProgress* out) const {
    const std::string_view text = joined.text();
    const AddedTokens marks = AddMarks(mark_ids);
    size_t done = 0;    // the text before it has its tokens
    size_t sought = 0;  // from there on added tokens are yet to be found: also whitespace that one has taken
    const auto find_mark = [&] {
      return marks.FindNext(text, sought, [&](const AddedToken&, size_t begin, size_t end) {
        return joined.AllowsSpecial(begin, end);
      });
    };
    const auto find_added = [&] {
      return parts_.added.FindNext(text, sought, [&](const AddedToken& token, size_t begin, size_t end) {
        return !marks.Contains(token.id) && (!token.special || joined.AllowsSpecial(begin, end));
      });
    };
    std::optional<AddedTokens::Found> mark, added;
    if (!marks.empty()) mark = find_mark();
    if (!parts_.added.empty()) added = find_added();
    while (sought < text.size()) {
      // Each is looked for again only when it has been passed.
      if (mark && mark->begin < sought) mark = find_mark();
      if (added && added->begin < sought) added = find_added();
      const bool is_mark = mark && !(added && Precedes(*added, *mark));
      const std::optional<AddedTokens::Found>& next = is_mark ? mark : added;
      AddedTokens::Found taken{text.size(), text.size(), -1};
      if (next) taken = (is_mark ? marks : parts_.added).WithWhitespace(text, done, *next);
      BW_RETURN_IF_ERROR(out->Advance(1 + taken.end - taken.begin));
      if (taken.begin > done) {
        BW_RETURN_IF_ERROR(parts_.encoder->Encode(text.substr(done, taken.begin - done),
                                                  /*at_start=*/done == 0, mark_ids, out));
      }
      if (!next) break;
      out->Push(next->id);
      done = taken.end;
      sought = next->end;
    }
    return absl::OkStatus();
  }

  // The longer of two that begin at one place comes first.
  static bool Precedes(const AddedTokens::Found& a, const AddedTokens::Found& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  }

  TokenizerParts parts_;
  BytesViewMap<TokenId> by_piece_;  // views into parts_.entries
  size_t mark_bytes_max_ = 1;       // any token may be a mark
};

}  // namespace

std::unique_ptr<Tokenizer> ComposeTokenizer(TokenizerParts parts) {
  return std::make_unique<ComposedTokenizer>(std::move(parts));
}

}  // namespace bellwether
