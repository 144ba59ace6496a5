#include "model/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"
#include "model/json_object.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/byte_piece.h"
#include "model/tokenizer/known_patterns.h"
#include "model/tokenizer/ranked_bpe.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer_json_steps.h"

namespace bellwether {
namespace {

struct Model {
  RankedBpeSpec* spec;
  TokenizerParts* parts;
  BytesMap<TokenId> ids;  // by spelling, before the added tokens
};

absl::StatusOr<TokenId> ReadId(const Json& value, absl::string_view where) {
  if (value.is_number_integer()) {
    const int64_t id =
        value.is_number_unsigned() && value.get<uint64_t>() > kMaxVocabulary ? -1 : value.get<int64_t>();
    if (id >= 0 && id < static_cast<int64_t>(kMaxVocabulary)) return static_cast<TokenId>(id);
  }
  return absl::InvalidArgumentError(absl::StrCat(where, ": an id is not a number below ", kMaxVocabulary));
}

VocabularyEntry& EntryAt(TokenId id, TokenizerParts* parts) {
  if (static_cast<size_t>(id) >= parts->entries.size()) parts->entries.resize(static_cast<size_t>(id) + 1);
  return parts->entries[id];
}

absl::Status ReadVocabulary(const Json& vocabulary, Model* model) {
  if (!vocabulary.is_object() || vocabulary.empty())
    return absl::InvalidArgumentError("model.vocab: no pieces");
  if (vocabulary.size() > kMaxVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("model.vocab: more than ", kMaxVocabulary, " pieces"));
  }
  for (const auto& [piece, value] : vocabulary.items()) {
    BW_ASSIGN_OR_RETURN(const TokenId id, ReadId(value, "model.vocab"));
    VocabularyEntry& entry = EntryAt(id, model->parts);
    if (!entry.piece.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab: ", Quoted(entry.piece), " and ",
                                                     Quoted(piece), " have the same id ", id));
    }
    entry.piece = piece;
    model->ids.emplace(piece, id);
  }
  return absl::OkStatus();
}

// A merge is ["a", "b"], or "a b" in older files.
bool SplitMerge(const Json& merge, std::string* left, std::string* right) {
  if (merge.is_string()) {
    const std::string& text = merge.text();
    const size_t space = text.find(' ', 1);
    if (space == std::string::npos) return false;
    *left = text.substr(0, space);
    *right = text.substr(space + 1);
    return true;
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) return false;
  *left = merge[0].get<std::string>();
  *right = merge[1].get<std::string>();
  return true;
}

// The first line of a merges.txt, which some converters copied into the list.
bool IsVersionLine(const Json& merge) { return merge.is_string() && merge.text().starts_with("#version"); }

absl::Status ReadMerges(const Json& merges, Model* model) {
  if (!merges.is_array()) return absl::InvalidArgumentError("model.merges: no list");
  model->spec->merges.reserve(merges.size());
  std::string left, right;
  for (size_t i = 0; i < merges.size(); ++i) {
    if (IsVersionLine(merges[i])) continue;
    if (!SplitMerge(merges[i], &left, &right)) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges: entry ", i, " is no pair of pieces"));
    }
    const auto a = model->ids.find(left), b = model->ids.find(right), joined = model->ids.find(left + right);
    if (a == model->ids.end() || b == model->ids.end() || joined == model->ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges: entry ", i, " (", Quoted(left), ", ", Quoted(right),
                       ") has a part or a result that is not in the vocabulary"));
    }
    model->spec->merges.push_back({a->second, b->second, joined->second});
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const Json& object, Model* model) {
  if (!object.is_object()) return absl::InvalidArgumentError("model: missing");
  JsonFields fields(object);
  const std::string type = fields.Text({"type"}, "BPE");
  if (fields.status().ok() && type != "BPE") {
    return absl::UnimplementedError(absl::StrCat("model of type ", type, " is not supported; only BPE is"));
  }
  RankedBpeSpec& spec = *model->spec;
  spec.byte_fallback = fields.Bool({"byte_fallback"}, false);
  spec.fuse_unknown = fields.Bool({"fuse_unk"}, false);
  spec.ignore_merges = fields.Bool({"ignore_merges"}, false);
  const std::string unknown = fields.Text({"unk_token"}, "");
  const double dropout = fields.Number({"dropout"}, 0.0);
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.Text({affix}, "").empty()) {
      return absl::UnimplementedError(absl::StrCat("model.", affix, " is not supported"));
    }
  }
  BW_RETURN_IF_ERROR(Annotate(fields.status(), "model"));
  if (dropout != 0.0) return absl::UnimplementedError("model.dropout is not supported");
  BW_RETURN_IF_ERROR(ReadVocabulary(object["vocab"], model));
  BW_RETURN_IF_ERROR(ReadMerges(object["merges"], model));
  const auto found = model->ids.find(unknown);
  if (found != model->ids.end()) spec.unknown_id = found->second;
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const Json& list, TokenizerParts* parts) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return absl::InvalidArgumentError("added_tokens: no list");
  for (const Json& object : list) {
    if (!object.is_object()) return absl::InvalidArgumentError("added_tokens: an entry is no object");
    JsonFields fields(object);
    AddedToken token;
    token.text = fields.Text({"content"}, "");
    token.special = fields.Bool({"special"}, false);
    token.lstrip = fields.Bool({"lstrip"}, false);
    token.rstrip = fields.Bool({"rstrip"}, false);
    token.single_word = fields.Bool({"single_word"}, false);
    BW_RETURN_IF_ERROR(Annotate(fields.status(), "added_tokens"));
    BW_ASSIGN_OR_RETURN(token.id, ReadId(object["id"], "added_tokens"));
    if (token.text.empty()) continue;  // the tokenizers library passes over these too
    VocabularyEntry& entry = EntryAt(token.id, parts);
    entry.piece = token.text;
    entry.special = token.special;
    parts->added.Add(std::move(token));
  }
  return absl::OkStatus();
}

// What each piece stands for in a text, and which pieces plain text can become.
absl::Status FillBytes(const DecoderRule& decoder, Model* model) {
  for (size_t i = 0; i < model->parts->entries.size(); ++i) {
    VocabularyEntry& entry = model->parts->entries[i];
    const bool added = model->parts->added.Contains(static_cast<TokenId>(i));
    if (entry.special || entry.piece.empty()) continue;
    entry.bytes = entry.piece;
    if (added) continue;
    if (decoder.byte_level) {
      if (std::optional<std::string> bytes = BytesOfPiece(entry.piece)) entry.bytes = *std::move(bytes);
    } else if (const auto byte = ByteOfPiece(entry.piece); byte && decoder.byte_fallback) {
      entry.bytes = std::string(1, static_cast<char>(*byte));
    } else {
      entry.bytes = decoder.replace.Apply(entry.piece);
    }
  }
  for (const auto& [piece, id] : model->ids) {
    if (model->parts->entries[id].special) continue;
    if (!model->spec->byte_level) {
      model->spec->vocabulary.emplace(piece, id);
    } else if (const std::optional<std::string> bytes = BytesOfPiece(piece)) {
      model->spec->vocabulary.emplace(*bytes, id);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerParts> Read(const Json& file) {
  if (!file.is_object()) return absl::InvalidArgumentError("not a JSON object");
  TokenizerParts parts;
  RankedBpeSpec spec;
  Model model{&spec, &parts};
  BW_RETURN_IF_ERROR(ReadModel(file["model"], &model));
  BW_RETURN_IF_ERROR(ReadAddedTokens(file["added_tokens"], &parts));
  BW_RETURN_IF_ERROR(ReadNormalizer(file["normalizer"], &spec.normalizer));
  BW_RETURN_IF_ERROR(ReadPreTokenizer(file["pre_tokenizer"], &spec));
  BW_ASSIGN_OR_RETURN(const DecoderRule decoder, ReadDecoder(file["decoder"]));
  if (decoder.byte_level != spec.byte_level) {
    return absl::UnimplementedError("pre_tokenizer and decoder: one is ByteLevel and the other is not");
  }
  BW_RETURN_IF_ERROR(ReadPostProcessor(file["post_processor"], &parts));
  BW_RETURN_IF_ERROR(FillBytes(decoder, &model));
  parts.strips_leading_space = decoder.strips_leading_space;
  parts.encoder = MakeRankedBpe(std::move(spec));
  return parts;
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view file) {
  const absl::StatusOr<Json> parsed = ParseJson(file);
  if (!parsed.ok()) return Annotate(parsed.status(), "tokenizer.json");
  absl::StatusOr<TokenizerParts> parts = Read(*parsed);
  if (!parts.ok()) return Annotate(parts.status(), "tokenizer.json");
  return parts;
}

}  // namespace bellwether
