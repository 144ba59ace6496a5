#include "model/tokenizer/ranked_bpe.h"

#include <array>

#include "absl/algorithm/container.h"
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
    spec_.merges = {};
    for (int byte = 0; byte < 256; ++byte) {
      const std::string spelling =
          spec_.byte_level ? std::string(1, static_cast<char>(byte)) : absl::StrFormat("<0x%02X>", byte);
      byte_ids_[byte] = Find(spelling);
    }
  }

  absl::Status Encode(std::string_view text, bool at_start, absl::Span<const TokenId> never,
                      std::vector<TokenId>* out) const override {
    const std::string normalized =
        spec_.normalizer.Apply(spec_.byte_level ? std::string(text) : ReplaceEachBrokenByte(text));
    PreTokenizer::Pieces pieces;
    BW_RETURN_IF_ERROR(spec_.pre_tokenizer.Apply(normalized, at_start, &pieces));
    std::vector<Symbol> symbols;
    for (const std::string_view piece : pieces.views) {
      const TokenId whole = spec_.ignore_merges ? Find(piece) : -1;
      if (whole >= 0 && !absl::c_linear_search(never, whole)) {
        out->push_back(whole);
        continue;
      }
      symbols.clear();
      spec_.byte_level ? SplitBytes(piece, &symbols) : SplitCharacters(piece, &symbols);
      MergeSymbols<int32_t>(&symbols, [&](const Symbol& left, const Symbol& right) {
        std::optional<MergeCandidate<int32_t>> candidate;
        const auto found = ranks_.find(Key(left.id, right.id));
        if (found == ranks_.end() || absl::c_linear_search(never, found->second.joined_id)) return candidate;
        candidate = found->second;
        return candidate;
      });
      for (const Symbol& symbol : symbols) {
        if (symbol.length > 0) out->push_back(symbol.id);
      }
    }
    return absl::OkStatus();
  }

 private:
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
  std::array<TokenId, 256> byte_ids_;  // -1 where the vocabulary has no piece for the byte
};

}  // namespace

std::unique_ptr<TextEncoder> MakeRankedBpe(RankedBpeSpec spec) {
  return std::make_unique<RankedBpe>(std::move(spec));
}

}  // namespace bellwether
