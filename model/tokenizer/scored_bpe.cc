#include "model/tokenizer/scored_bpe.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "common/utf8.h"
#include "model/tokenizer/byte_piece.h"
#include "model/tokenizer/bytes_map.h"
#include "model/tokenizer/longest_match.h"
#include "model/tokenizer/symbol_merger.h"

namespace bellwether {
namespace {

using PieceType = SentencepieceModel::PieceType;
constexpr const char* kSpaceMarkText = "\xE2\x96\x81";  // U+2581
constexpr std::string_view kSpaceMark = kSpaceMarkText;

// Sentencepiece's BPE: of all adjacent pairs whose joined text is a piece, the one with the highest score is
// joined first, the leftmost among equals. Ids play no part: vocabularies extended later have scores in any
// order.
class ScoredBpe final : public TextEncoder {
 public:
  explicit ScoredBpe(SentencepieceModel model) : model_(std::move(model)) {
    byte_ids_.fill(-1);
    for (size_t i = 0; i < model_.pieces.size(); ++i) {
      const SentencepieceModel::Piece& piece = model_.pieces[i];
      const TokenId id = static_cast<TokenId>(i);
      switch (piece.type) {
        case PieceType::kByte:
          byte_ids_[*ByteOfPiece(piece.text)] = id;
          break;
        case PieceType::kControl:
        case PieceType::kUnknown:
          break;
        case PieceType::kUserDefined:
          user_defined_.Add(piece.text, id);
          [[fallthrough]];
        case PieceType::kUnused:
        case PieceType::kNormal:
          has_unused_ |= piece.type == PieceType::kUnused;
          text_ids_.emplace(piece.text, id);
          max_piece_bytes_ = std::max(max_piece_bytes_, piece.text.size());
          spans_spaces_ |= SpansSpaces(piece.text);
      }
    }
  }

  size_t token_bytes_max() const override {
    return model_.remove_extra_whitespaces ? kAnyBytes : normalized_token_bytes_max();
  }

  absl::Status Encode(std::string_view text, bool /*at_start*/, absl::Span<const TokenId> never,
                      EncodeProgress* out) const override {
    const std::string normalized = Normalize(text);
    BW_RETURN_IF_ERROR(out->Advance(text.size()));
    bool after_unknown = false;
    for (std::string_view rest = normalized; !rest.empty();) {
      const std::string_view stretch = rest.substr(0, StretchBytes(rest));
      BW_RETURN_IF_ERROR(
          out->Advance(stretch.size(), FewestTokensOf(rest.size(), normalized_token_bytes_max())));
      BW_RETURN_IF_ERROR(EncodeStretch(stretch, never, &after_unknown, out));
      rest.remove_prefix(stretch.size());
    }
    return out->Advance(0);
  }

 private:
  // As token_bytes_max, of text that has been normalised. A run of unknown characters is one token.
  size_t normalized_token_bytes_max() const {
    return model_.byte_fallback ? std::max<size_t>(1, max_piece_bytes_) : kAnyBytes;
  }

  std::string_view space() const { return model_.escape_whitespaces ? kSpaceMark : std::string_view(" "); }

  // Whether a space follows something else within the piece.
  bool SpansSpaces(std::string_view piece) const {
    while (piece.starts_with(space())) piece.remove_prefix(space().size());
    return piece.find(space()) != std::string_view::npos;
  }

  // How much of a normalised text can be encoded without a look at what follows: where no piece spans a
  // space, nothing joins across the beginning of a word.
  size_t StretchBytes(std::string_view text) const {
    constexpr size_t kStretchBytes = 1024;  // more is slower, as the candidates outgrow the caches
    // The halves of an unused piece are those of its last occurrence in the whole text.
    if (spans_spaces_ || has_unused_) return text.size();
    for (size_t at = kStretchBytes; at < text.size(); ++at) {
      at = text.find(space(), at);
      if (at == std::string_view::npos) break;
      if (!text.substr(0, at).ends_with(space())) return at;
    }
    return text.size();
  }

  absl::Status EncodeStretch(std::string_view text, absl::Span<const TokenId> never, bool* after_unknown,
                             EncodeProgress* out) const {
    std::vector<Symbol> symbols = Split(text, never);
    // The two halves of each joined unused piece: it must be taken apart again.
    BytesViewMap<size_t> left_length;
    const auto candidate_of = [&](const Symbol& left, const Symbol& right) {
      std::optional<MergeCandidate<float>> candidate;
      const size_t length = size_t{left.length} + right.length;
      if (length > max_piece_bytes_) return candidate;
      const std::string_view joined = text.substr(left.begin, length);
      const auto found = text_ids_.find(joined);
      if (found == text_ids_.end() || absl::c_linear_search(never, found->second)) return candidate;
      if (has_unused_ && IsUnused(found->second)) left_length[joined] = left.length;
      candidate = MergeCandidate<float>{-model_.pieces[found->second].score, found->second};
      return candidate;
    };
    BW_RETURN_IF_ERROR(MergeSymbols<float>(&symbols, candidate_of, out));
    for (const Symbol& symbol : symbols) {
      if (symbol.length == 0) continue;
      Emit(text.substr(symbol.begin, symbol.length), left_length, after_unknown, out);
    }
    return absl::OkStatus();
  }

  bool IsUnused(TokenId id) const { return model_.pieces[id].type == PieceType::kUnused; }

  // Whitespace rules of the model; each byte that is not UTF-8 becomes U+FFFD, as sentencepiece has it.
  std::string Normalize(std::string_view text) const {
    if (model_.remove_extra_whitespaces) {
      const size_t first = text.find_first_not_of(' ');
      if (first == std::string_view::npos) return "";
      text = text.substr(first, text.find_last_not_of(' ') + 1 - first);
    }
    std::string normalized;
    normalized.reserve(text.size() + 3);
    if (model_.add_dummy_prefix) normalized += space();
    bool after_space = false;
    for (const char c : ReplaceEachBrokenByte(text)) {
      const bool is_space = c == ' ';
      if (!is_space) normalized += c;
      if (is_space && !(after_space && model_.remove_extra_whitespaces)) normalized += space();
      after_space = is_space;
    }
    return normalized;
  }

  // User-defined pieces whole and fixed, everything else by character.
  std::vector<Symbol> Split(std::string_view normalized, absl::Span<const TokenId> never) const {
    std::vector<Symbol> symbols;
    for (size_t at = 0; at < normalized.size();) {
      const std::string_view rest = normalized.substr(at);
      const auto whole = user_defined_.Find(
          rest, [&](LongestMatch::Match match) { return !absl::c_linear_search(never, match.id); });
      const size_t length = whole ? whole->length : ReadUtf8(rest).length;
      symbols.push_back({.begin = static_cast<uint32_t>(at),
                         .length = static_cast<uint32_t>(length),
                         .fixed = whole.has_value()});
      at += length;
    }
    return symbols;
  }

  void Emit(std::string_view text, const BytesViewMap<size_t>& left_length, bool* after_unknown,
            EncodeProgress* out) const {
    std::vector<std::string_view> open = {text};  // what an unused piece was made of, last part first
    while (!open.empty()) {
      const std::string_view part = open.back();
      open.pop_back();
      const auto found = text_ids_.find(part);
      if (found == text_ids_.end()) {
        EmitUnknown(part, after_unknown, out);
        continue;
      }
      const auto halves = left_length.find(part);
      if (IsUnused(found->second) && halves != left_length.end()) {
        open.push_back(part.substr(halves->second));
        open.push_back(part.substr(0, halves->second));
        continue;
      }
      out->Push(found->second);
      *after_unknown = false;
    }
  }

  // Byte pieces, or one unknown token for a run of unknown characters.
  void EmitUnknown(std::string_view text, bool* after_unknown, EncodeProgress* out) const {
    if (model_.byte_fallback) {
      for (const char c : text) out->Push(byte_ids_[static_cast<uint8_t>(c)]);
      return;
    }
    if (!*after_unknown) out->Push(*model_.unknown_id);
    *after_unknown = true;
  }

  SentencepieceModel model_;
  BytesViewMap<TokenId> text_ids_;  // views into model_: pieces that text can become
  std::array<TokenId, 256> byte_ids_;
  LongestMatch user_defined_;
  size_t max_piece_bytes_ = 0;
  bool has_unused_ = false;
  bool spans_spaces_ = false;  // a piece has a space after something else
};

VocabularyEntry MakeEntry(const SentencepieceModel::Piece& piece, bool escape_whitespaces) {
  VocabularyEntry entry{.piece = piece.text};
  if (piece.type == PieceType::kControl || piece.type == PieceType::kUnknown) {
    entry.special = true;
  } else if (piece.type == PieceType::kByte) {
    entry.bytes = std::string(1, static_cast<char>(*ByteOfPiece(piece.text)));
  } else {
    entry.bytes = piece.text;
    if (escape_whitespaces) absl::StrReplaceAll({{kSpaceMarkText, " "}}, &entry.bytes);
  }
  return entry;
}

}  // namespace

absl::StatusOr<TokenizerParts> MakeScoredBpe(SentencepieceModel model) {
  BW_RETURN_IF_ERROR(ValidateSentencepieceModel(model));
  TokenizerParts parts;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencepieceModel::Piece& piece = model.pieces[id];
    VocabularyEntry entry = MakeEntry(piece, model.escape_whitespaces);
    if (entry.special) parts.added.Add({.text = piece.text, .id = static_cast<TokenId>(id)});
    parts.entries.push_back(std::move(entry));
  }
  parts.bos_id = model.bos_id;
  if (model.eos_id) parts.eos_ids.push_back(*model.eos_id);
  parts.strips_leading_space = model.add_dummy_prefix || model.remove_extra_whitespaces;
  parts.encoder = std::make_unique<ScoredBpe>(std::move(model));
  return parts;
}

}  // namespace bellwether
