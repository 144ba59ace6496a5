#include "model/tokenizer/gguf_vocabulary.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/composed_tokenizer.h"
#include "model/tokenizer/known_patterns.h"
#include "model/tokenizer/ranked_bpe.h"
#include "model/tokenizer/scored_bpe.h"

namespace bellwether {
namespace {

using PieceType = SentencepieceModel::PieceType;

absl::Status Damaged(const std::string& what) {
  return absl::InvalidArgumentError("tokenizer.ggml: " + what);
}

absl::Status CheckSizes(const GgufVocabulary& v) {
  const size_t count = v.tokens.size();
  if (count == 0) return Damaged("no tokens");
  if (count > kMaxVocabulary) return Damaged(absl::StrCat("more than ", kMaxVocabulary, " tokens"));
  if (!v.scores.empty() && v.scores.size() != count) {
    return Damaged(absl::StrCat(v.scores.size(), " scores for ", count, " tokens"));
  }
  if (!v.token_types.empty() && v.token_types.size() != count) {
    return Damaged(absl::StrCat(v.token_types.size(), " token types for ", count, " tokens"));
  }
  for (const int32_t type : v.token_types) {
    if (type < 0 || type > 6) return Damaged(absl::StrCat("unknown token type ", type));
  }
  for (const std::optional<int32_t>& id : {v.bos_id, v.eos_id, v.eot_id}) {
    if (id && (*id < 0 || static_cast<size_t>(*id) >= count)) {
      return Damaged(absl::StrCat("special token id ", *id, " of ", count, " tokens"));
    }
  }
  return absl::OkStatus();
}

// Files exist whose padding or unknown id lies just beyond the vocabulary. Nothing is lost without them.
void DropStrayIds(GgufVocabulary* v) {
  const auto drop = [&](const char* name, std::optional<int32_t>* id) {
    if (!id->has_value() || (**id >= 0 && static_cast<size_t>(**id) < v->tokens.size())) return;
    LogWarning("tokenizer.ggml.", name, " is ", **id, " of ", v->tokens.size(), " tokens: passed over");
    id->reset();
  };
  drop("unknown_token_id", &v->unknown_id);
  drop("padding_token_id", &v->padding_id);
}

absl::Status AddBosEos(const GgufVocabulary& v, TokenizerParts* parts) {
  parts->bos_id = v.bos_id;
  parts->eos_ids.clear();
  for (const std::optional<int32_t>& id : {v.eos_id, v.eot_id}) {
    if (id) parts->eos_ids.push_back(*id);
  }
  if (*v.add_bos) {
    if (!v.bos_id) return Damaged("add_bos_token without a bos_token_id");
    parts->prefix.push_back(*v.bos_id);
  }
  if (*v.add_eos) {
    if (!v.eos_id) return Damaged("add_eos_token without an eos_token_id");
    parts->suffix.push_back(*v.eos_id);
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerParts> MakeLlama(const GgufVocabulary& v) {
  BW_ASSIGN_OR_RETURN(TokenizerParts parts, MakeScoredBpe(SentencepieceOf(v)));
  BW_RETURN_IF_ERROR(AddBosEos(v, &parts));
  return parts;
}

absl::Status AddTokens(const GgufVocabulary& v, RankedBpeSpec* spec, TokenizerParts* parts) {
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const PieceType type = TypeOf(v, i);
    VocabularyEntry entry{.piece = v.tokens[i], .bytes = v.tokens[i]};
    if (type == PieceType::kControl || type == PieceType::kUnknown) {
      entry.special = true;
      entry.bytes.clear();
      parts->added.Add({.text = entry.piece, .id = id});
    } else if (type == PieceType::kUserDefined) {
      parts->added.Add({.text = entry.piece, .id = id, .special = false});
    } else if (std::optional<std::string> bytes = BytesOfPiece(entry.piece)) {
      entry.bytes = *std::move(bytes);
      if (type == PieceType::kNormal) spec->vocabulary.emplace(entry.bytes, id);
    }
    parts->entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status AddMerges(const GgufVocabulary& v, RankedBpeSpec* spec) {
  BytesViewMap<TokenId> ids;
  for (size_t id = 0; id < v.tokens.size(); ++id) ids.emplace(v.tokens[id], static_cast<TokenId>(id));
  bool warned = false;
  for (size_t i = 0; i < v.merges.size(); ++i) {
    const std::string& merge = v.merges[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) return Damaged(absl::StrCat("merge ", i, " is no pair of pieces"));
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const auto a = ids.find(left), b = ids.find(right), joined = ids.find(left + right);
    if (a == ids.end() || b == ids.end() || joined == ids.end()) {
      if (!std::exchange(warned, true)) {
        LogWarning("tokenizer.ggml.merges: entry ", i, ", ", Quoted(merge),
                   ", has a part or a result that is no token: such merges never apply");
      }
      continue;
    }
    spec->merges.push_back({a->second, b->second, joined->second});
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerParts> MakeGpt2(const GgufVocabulary& v) {
  BW_ASSIGN_OR_RETURN(const KnownPreTokenizer known, FindKnownPreTokenizer(v.pre));
  TokenizerParts parts;
  RankedBpeSpec spec;
  spec.byte_level = true;
  spec.ignore_merges = known.ignore_merges;
  for (const char* pattern : known.patterns) {
    BW_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
    spec.pre_tokenizer.Add(PreTokenizer::Split{std::move(regex)});
  }
  BW_RETURN_IF_ERROR(AddTokens(v, &spec, &parts));
  BW_RETURN_IF_ERROR(AddMerges(v, &spec));
  BW_RETURN_IF_ERROR(AddBosEos(v, &parts));
  parts.encoder = MakeRankedBpe(std::move(spec));
  return parts;
}

// Defaults of the kind "llama".
void FillLlama(GgufVocabulary* v) {
  const auto or_default = [&](std::optional<int32_t> id, int32_t fallback) {
    if (!id && static_cast<size_t>(fallback) < v->tokens.size()) id = fallback;
    return id;
  };
  v->unknown_id = or_default(v->unknown_id, 0);
  v->bos_id = or_default(v->bos_id, 1);
  v->eos_id = or_default(v->eos_id, 2);
  v->add_bos = v->add_bos.value_or(true);
}

}  // namespace

absl::Status SettleVocabulary(GgufVocabulary* v) {
  BW_RETURN_IF_ERROR(CheckSizes(*v));
  DropStrayIds(v);
  v->add_eos = v->add_eos.value_or(false);
  if (v->model == "llama") {
    if (v->scores.empty()) return Damaged("model \"llama\" without scores");
    FillLlama(v);
  } else if (v->model == "gpt2") {
    if (v->merges.empty()) return Damaged("model \"gpt2\" without merges");
    BW_ASSIGN_OR_RETURN(const KnownPreTokenizer known, FindKnownPreTokenizer(v->pre));
    v->add_bos = v->add_bos.value_or(known.add_bos);
  } else {
    return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.model ", Quoted(v->model),
                                                 " is not supported; supported are llama and gpt2"));
  }
  return absl::OkStatus();
}

PieceType TypeOf(const GgufVocabulary& v, size_t id) {
  if (!v.token_types.empty()) return static_cast<PieceType>(v.token_types[id] == 0 ? 1 : v.token_types[id]);
  const TokenId token = static_cast<TokenId>(id);
  if (token == v.unknown_id) return PieceType::kUnknown;
  const bool control = token == v.bos_id || token == v.eos_id || token == v.eot_id || token == v.padding_id;
  return control ? PieceType::kControl : PieceType::kNormal;
}

SentencepieceModel SentencepieceOf(const GgufVocabulary& v) {
  SentencepieceModel model;
  model.add_dummy_prefix = v.add_space_prefix.value_or(true);
  model.remove_extra_whitespaces = false;
  model.unknown_id = v.unknown_id;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const PieceType type = TypeOf(v, id);
    model.byte_fallback |= type == PieceType::kByte;
    model.pieces.push_back({v.tokens[id], v.scores[id], type});
  }
  return model;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizerFromGguf(GgufVocabulary vocabulary) {
  BW_RETURN_IF_ERROR(SettleVocabulary(&vocabulary));
  BW_ASSIGN_OR_RETURN(TokenizerParts parts,
                      vocabulary.model == "llama" ? MakeLlama(vocabulary) : MakeGpt2(vocabulary));
  return ComposeTokenizer(std::move(parts));
}

}  // namespace bellwether
