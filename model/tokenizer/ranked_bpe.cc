#include "model/tokenizer/ranked_bpe.h"

#include <algorithm>
#include <array>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "common/utf8.h"
#include "model/tokenizer/symbol_merger.h"

namespace bellwether {
namespace {

class RankedBpe final : public TextEncoder {
 public:
  explicit RankedBpe(RankedBpeSpec spec) : spec_(std::move(spec)) {
    for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
      const RankedBpeSpec::Merge& merge = spec_.merges[rank];
      ranks_[Key(merge.left, merge.right)] = {static_cast<int32_t>(rank), merge.joined};
    }
    for (int byte = 0; byte < 256; ++byte) {
      const std::string spelling =
          spec_.byte_level ? std::string(1, static_cast<char>(byte)) : absl::StrFormat("<0x%02X>", byte);
      byte_ids_[byte] = Find(spelling);
      lasts_[byte] = byte_ids_[byte] >= 0 || !spec_.byte_level || !MissingCanShrink();
    }
    all_last_ = absl::c_all_of(lasts_, [](bool lasts) { return lasts; });
    normalized_token_bytes_max_ = NormalizedTokenBytesMax();
    spec_.merges = {};
  }

  size_t token_bytes_max() const override {
    return StillTellsTokens(spec_.normalizer.effect()) ? normalized_token_bytes_max_ : kAnyBytes;
  }

  size_t LastingBytes(std::string_view text) const override {
    if (all_last_) return text.size();
    size_t lasting = 0;
    for (const char c : text) lasting += lasts_[static_cast<uint8_t>(c)];
    return lasting;
  }

  absl::Status Encode(std::string_view text, bool at_start, absl::Span<const TokenId> never,
                      EncodeProgress* out) const override {
    const std::string normalized =
        spec_.normalizer.Apply(spec_.byte_level ? std::string(text) : ReplaceEachBrokenByte(text));
    BW_RETURN_IF_ERROR(
        out->Advance(text.size(), FewestTokensOf(LastingBytes(normalized), normalized_token_bytes_max_)));
    PreTokenizer::Pieces pieces;
    BW_RETURN_IF_ERROR(spec_.pre_tokenizer.Apply(normalized, at_start, out, &pieces));
    std::vector<Symbol> symbols;
    for (const std::string_view piece : pieces.views) {
      BW_RETURN_IF_ERROR(out->Advance(piece.size()));
      const TokenId whole = spec_.ignore_merges ? Find(piece) : -1;
      if (whole >= 0 && !absl::c_linear_search(never, whole)) {
        out->Push(whole);
        continue;
      }
      symbols.clear();
      spec_.byte_level ? SplitBytes(piece, &symbols) : SplitCharacters(piece, &symbols);
      BW_RETURN_IF_ERROR(Merge(never, &symbols, out));
      for (const Symbol& symbol : symbols) {
        if (symbol.length > 0) out->Push(symbol.id);
      }
    }
    return out->Advance(0);
  }

 private:
  absl::Status Merge(absl::Span<const TokenId> never, std::vector<Symbol>* symbols,
                     EncodeProgress* out) const {
    const auto candidate_of = [&](const Symbol& left, const Symbol& right) {
      std::optional<MergeCandidate<int32_t>> candidate;
      const auto found = ranks_.find(Key(left.id, right.id));
      if (found == ranks_.end() || absl::c_linear_search(never, found->second.joined_id)) return candidate;
      candidate = found->second;
      return candidate;
    };
    return MergeSymbols<int32_t>(symbols, candidate_of, out);
  }

  // As token_bytes_max, of text that has been normalised.
  size_t NormalizedTokenBytesMax() const {
    if (!StillTellsTokens(spec_.pre_tokenizer.effect()) || CharactersCanShrink()) return kAnyBytes;
    size_t longest = 4;  // a character that is unknown
    absl::flat_hash_set<TokenId> spelled;
    for (const auto& [piece, id] : spec_.vocabulary) {
      longest = std::max(longest, piece.size());
      spelled.insert(id);
    }
    // A merge of what is not spelled as it stands in the text could be of any length.
    for (const RankedBpeSpec::Merge& merge : spec_.merges) {
      if (!spelled.contains(merge.joined)) return kAnyBytes;
      if (spec_.unknown_id && (merge.left == *spec_.unknown_id || merge.right == *spec_.unknown_id)) {
        return kAnyBytes;
      }
    }
    return longest;
  }

  // Whether the bytes before a step tell how many tokens follow it: where some vanish they must be the same.
  bool StillTellsTokens(ByteEffect effect) const {
    return effect == ByteEffect::kKeeps || (effect == ByteEffect::kRewrites && all_last_);
  }

  // Whether what the vocabulary lacks vanishes, or becomes fewer tokens than it is.
  bool MissingCanShrink() const { return !spec_.unknown_id || spec_.fuse_unknown; }
  // Of characters nobody counts which ones are missing.
  bool CharactersCanShrink() const {
    if (spec_.byte_level) return false;
    const bool falls_back = spec_.byte_fallback && !absl::c_linear_search(byte_ids_, -1);
    return !falls_back && MissingCanShrink();
  }

  static uint64_t Key(TokenId left, TokenId right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }
  TokenId Find(std::string_view piece) const {
    const auto found = spec_.vocabulary.find(piece);
    return found == spec_.vocabulary.end() ? -1 : found->second;
  }
  static void Append(size_t begin, size_t length, TokenId id, std::vector<Symbol>* symbols) {
    symbols->push_back(
        {.begin = static_cast<uint32_t>(begin), .length = static_cast<uint32_t>(length), .id = id});
  }

  void AppendUnknown(size_t begin, size_t length, std::vector<Symbol>* symbols) const {
    if (!spec_.unknown_id) return;
    if (spec_.fuse_unknown && !symbols->empty() && symbols->back().id == *spec_.unknown_id) {
      symbols->back().length += static_cast<uint32_t>(length);
    } else {
      Append(begin, length, *spec_.unknown_id, symbols);
    }
  }

  void SplitBytes(std::string_view piece, std::vector<Symbol>* symbols) const {
    for (size_t at = 0; at < piece.size(); ++at) {
      const TokenId id = byte_ids_[static_cast<uint8_t>(piece[at])];
      id >= 0 ? Append(at, 1, id, symbols) : AppendUnknown(at, 1, symbols);
    }
  }

  void SplitCharacters(std::string_view piece, std::vector<Symbol>* symbols) const {
    for (size_t at = 0; at < piece.size();) {
      const std::string_view character = piece.substr(at, ReadUtf8(piece.substr(at)).length);
      const TokenId id = Find(character);
      if (id >= 0) {
        Append(at, character.size(), id, symbols);
      } else if (!spec_.byte_fallback || !AppendBytes(at, character, symbols)) {
        AppendUnknown(at, character.size(), symbols);
      }
      at += character.size();
    }
  }

  bool AppendBytes(size_t begin, std::string_view character, std::vector<Symbol>* symbols) const {
    for (const char c : character) {
      if (byte_ids_[static_cast<uint8_t>(c)] < 0) return false;
    }
    for (size_t i = 0; i < character.size(); ++i) {
      Append(begin + i, 1, byte_ids_[static_cast<uint8_t>(character[i])], symbols);
    }
    return true;
  }

  RankedBpeSpec spec_;
  absl::flat_hash_map<uint64_t, MergeCandidate<int32_t>> ranks_;
  size_t normalized_token_bytes_max_ = kAnyBytes;
  std::array<TokenId, 256> byte_ids_;  // -1 where the vocabulary has no piece for the byte
  std::array<bool, 256> lasts_;        // byte by byte, as LastingBytes has it
  bool all_last_ = false;
};

}  // namespace

std::unique_ptr<TextEncoder> MakeRankedBpe(RankedBpeSpec spec) {
  return std::make_unique<RankedBpe>(std::move(spec));
}

}  // namespace bellwether
