#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/tokenizer/bytes_map.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/text_normalizer.h"

namespace bellwether {

// BPE whose merges are a list of pairs in order of rank (tokenizer.json, GGUF "gpt2").
struct RankedBpeSpec {
  TextNormalizer normalizer;
  PreTokenizer pre_tokenizer;
  bool byte_level = false;     // merging starts from bytes; else from characters, spelled as pieces are
  bool byte_fallback = false;  // an unknown character becomes its "<0xAB>" pieces, if all are there
  bool fuse_unknown = false;   // a run of unknown characters becomes one unknown token
  bool ignore_merges = false;  // a stretch that is a piece by itself is not merged at all
  std::optional<TokenId> unknown_id;  // without it unknown characters vanish

  // Pieces that text can become: bytes for byte_level, else as spelled. Special tokens are left out.
  BytesMap<TokenId> vocabulary;
  struct Merge {
    TokenId left;
    TokenId right;
    TokenId joined;
  };
  std::vector<Merge> merges;  // by rank
};

std::unique_ptr<TextEncoder> MakeRankedBpe(RankedBpeSpec spec);

}  // namespace bellwether
