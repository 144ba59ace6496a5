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
  // See AddedTokens::FindNext. Calls come with growing `at`, so the piece is found by walking on.
  size_t SpecialEndAt(size_t at) {
    while (ends_[piece_].end <= at) ++piece_;
    return ends_[piece_].special ? ends_[piece_].end : 0;
  }

 private:
  struct End {
    size_t end;
    bool special;
  };
  std::string text_;
  std::vector<End> ends_;
  size_t piece_ = 0;
};

class ComposedTokenizer final : public Tokenizer {
 public:
  explicit ComposedTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    by_piece_.reserve(parts_.entries.size());
    for (size_t id = 0; id < parts_.entries.size(); ++id) {
      const std::string& piece = parts_.entries[id].piece;
      if (!piece.empty()) by_piece_.emplace(piece, static_cast<TokenId>(id));
    }
    std::vector<TokenId> eos;
    for (const TokenId id : parts_.eos_ids) {
      if (Known(id) && std::find(eos.begin(), eos.end(), id) == eos.end()) eos.push_back(id);
    }
    parts_.eos_ids = std::move(eos);
    if (parts_.bos_id && !Known(*parts_.bos_id)) parts_.bos_id.reset();
  }

  absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces,
                                                    bool add_special_tokens) const override {
    size_t bytes = 0;
    for (const TextPiece& piece : pieces) {
      bytes += std::min(piece.text.size(), kMaxTextBytes + 1);
      if (bytes > kMaxTextBytes) {
        return absl::InvalidArgumentError(
            absl::StrCat("text is longer than the limit of ", kMaxTextBytes, " bytes: shorten it"));
      }
    }
    std::vector<TokenId> ids;
    if (add_special_tokens) ids = parts_.prefix;
    BW_RETURN_IF_ERROR(EncodeText(JoinedText(pieces), &ids));
    if (add_special_tokens) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
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

  absl::Status EncodeText(JoinedText joined, std::vector<TokenId>* ids) const {
    const std::string_view text = joined.text();
    size_t done = 0;
    while (done < text.size()) {
      std::optional<AddedTokens::Found> next;
      if (!parts_.added.empty()) {
        next = parts_.added.FindNext(text, done, [&](size_t at) { return joined.SpecialEndAt(at); });
      }
      const size_t plain_end = next ? next->begin : text.size();
      if (plain_end > done) {
        BW_RETURN_IF_ERROR(
            parts_.encoder->Encode(text.substr(done, plain_end - done), /*at_start=*/done == 0, ids));
      }
      if (!next) break;
      ids->push_back(next->id);
      done = next->end;
    }
    return absl::OkStatus();
  }

  TokenizerParts parts_;
  BytesViewMap<TokenId> by_piece_;  // views into parts_.entries
};

}  // namespace

std::unique_ptr<Tokenizer> ComposeTokenizer(TokenizerParts parts) {
  return std::make_unique<ComposedTokenizer>(std::move(parts));
}

}  // namespace bellwether
