#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace bellwether {

// What a sentencepiece BPE model says, from tokenizer.model or a GGUF file.
struct SentencepieceModel {
  enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;  // by id
  bool byte_fallback = false;
  bool add_dummy_prefix = true;          // U+2581 before the text
  bool remove_extra_whitespaces = true;  // at both ends, and all but one in a run
  bool escape_whitespaces = true;        // spaces become U+2581
  std::optional<TokenId> unknown_id, bos_id, eos_id, padding_id;
};

// Most pieces that a tokenizer may have, whatever its file format.
inline constexpr size_t kMaxVocabulary = size_t{1} << 20;

// Reads the protobuf of a tokenizer.model file. UNIMPLEMENTED: a kind that is not BPE, a normalisation map,
// whitespace as a suffix. INVALID_ARGUMENT: damaged, with what and where.
absl::StatusOr<SentencepieceModel> ParseSentencepieceModel(std::string_view file);

// The protobuf of a tokenizer.model that reads back as `model`, where the unknown token is a piece of its
// type and BOS, EOS and padding are control pieces.
std::string WriteSentencepieceModel(const SentencepieceModel& model);

// INVALID_ARGUMENT when the pieces contradict each other (from a parsed file or a GGUF alike).
absl::Status ValidateSentencepieceModel(const SentencepieceModel& model);

}  // namespace bellwether
