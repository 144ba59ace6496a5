#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/json_object.h"
#include "model/tokenizer/composed_tokenizer.h"
#include "model/tokenizer/scored_bpe.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_json.h"

namespace bellwether {
namespace {

// An empty object when there is no such file.
absl::StatusOr<Json> ReadJson(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadSmallFile(path, kJsonBytesMax);
  if (absl::IsNotFound(bytes.status())) return Json::object();
  BW_RETURN_IF_ERROR(bytes.status());
  absl::StatusOr<Json> parsed = ParseJsonObject(*bytes);
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  return parsed;
}

// What the files beside the tokenizer say of it.
struct SideFiles {
  Json config;          // tokenizer_config.json
  Json special_tokens;  // special_tokens_map.json
  Json added_tokens;    // added_tokens.json
  Json generation;      // generation_config.json
};

absl::StatusOr<SideFiles> ReadSideFiles(const std::string& dir) {
  SideFiles files;
  BW_ASSIGN_OR_RETURN(files.config, ReadJson(dir + "/tokenizer_config.json"));
  BW_ASSIGN_OR_RETURN(files.special_tokens, ReadJson(dir + "/special_tokens_map.json"));
  BW_ASSIGN_OR_RETURN(files.added_tokens, ReadJson(dir + "/added_tokens.json"));
  BW_ASSIGN_OR_RETURN(files.generation, ReadJson(dir + "/generation_config.json"));
  return files;
}

// A token's spelling: a string, or an object with "content". "" for anything else.
std::string Spelling(const Json& token) {
  const Json& text = token.is_object() ? token["content"] : token;
  return text.is_string() ? text.get<std::string>() : "";
}

// What special_tokens_map.json and tokenizer_config.json call special: "bos_token" and its kin are one token
// each, "additional_special_tokens" is a list of them, "extra_special_tokens" a list or an object.
absl::flat_hash_set<std::string> SpecialSpellings(const SideFiles& files) {
  absl::flat_hash_set<std::string> spellings;
  for (const Json* file : {&files.config, &files.special_tokens}) {
    for (const auto& [key, value] : file->items()) {
      if (key.ends_with("_token")) spellings.insert(Spelling(value));
      if (!key.ends_with("_special_tokens")) continue;
      for (const Json& token : value.elements()) spellings.insert(Spelling(token));
      for (const auto& [name, token] : value.items()) spellings.insert(Spelling(token));
    }
  }
  spellings.erase("");
  return spellings;
}

std::optional<TokenId> FindPiece(const TokenizerParts& parts, const std::string& piece) {
  if (piece.empty()) return std::nullopt;
  for (size_t id = 0; id < parts.entries.size(); ++id) {
    if (parts.entries[id].piece == piece) return static_cast<TokenId>(id);
  }
  return std::nullopt;
}

// The id of "bos_token" or "eos_token". Converters of 2023 wrote these as "": that says nothing, so the id
// that the tokenizer itself has stands.
std::optional<TokenId> NamedToken(const SideFiles& files, const char* key, const TokenizerParts& parts) {
  for (const Json* file : {&files.config, &files.special_tokens}) {
    if (const auto id = FindPiece(parts, Spelling((*file)[key]))) return id;
  }
  return std::nullopt;
}

absl::Status FillBosEos(const SideFiles& files, const std::string& dir, TokenizerParts* parts) {
  if (const auto id = NamedToken(files, "bos_token", *parts)) parts->bos_id = id;
  if (!parts->bos_id && !parts->prefix.empty()) parts->bos_id = parts->prefix.front();
  if (const auto id = NamedToken(files, "eos_token", *parts)) parts->eos_ids = {*id};
  if (parts->eos_ids.empty()) {
    for (const char* usual : {"</s>", "<|endoftext|>", "<|end_of_text|>"}) {
      const auto id = FindPiece(*parts, usual);
      if (id && parts->entries[*id].special && parts->eos_ids.empty()) parts->eos_ids = {*id};
    }
  }
  JsonFields generation(files.generation);
  for (const int64_t id : generation.Integers("eos_token_id")) {
    if (id >= 0 && id < static_cast<int64_t>(parts->entries.size())) {
      parts->eos_ids.push_back(static_cast<TokenId>(id));
    }
  }
  return Annotate(generation.status(), dir + "/generation_config.json");
}

// LLaMA's tokenizer classes put BOS before a text, and EOS after none, unless the config says otherwise; and
// what it says goes before the post-processor. Other classes leave this to the post-processor.
absl::Status FillPrefix(const SideFiles& files, const std::string& dir, bool is_sentencepiece,
                        TokenizerParts* parts) {
  JsonFields fields(files.config);
  const std::string tokenizer_class = fields.Text({"tokenizer_class"}, "");
  const bool says_bos = fields.Has("add_bos_token"), says_eos = fields.Has("add_eos_token");
  const bool bos = fields.Bool({"add_bos_token"}, true), eos = fields.Bool({"add_eos_token"}, false);
  BW_RETURN_IF_ERROR(Annotate(fields.status(), dir + "/tokenizer_config.json"));
  const bool has_own = !parts->prefix.empty() || !parts->suffix.empty();
  const bool is_llama = is_sentencepiece || tokenizer_class.starts_with("LlamaTokenizer");
  if (!is_llama || (has_own && !says_bos && !says_eos)) return absl::OkStatus();
  parts->prefix.clear();
  parts->suffix.clear();
  if (bos && parts->bos_id) parts->prefix = {*parts->bos_id};
  if (eos && !parts->eos_ids.empty()) parts->suffix = {parts->eos_ids.front()};
  return absl::OkStatus();
}

absl::Status AddToken(AddedToken token, int64_t id, const std::string& file, TokenizerParts* parts) {
  if (id < 0 || id >= static_cast<int64_t>(kMaxVocabulary) || token.text.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": added token ", Quoted(token.text), " has the id ", id));
  }
  token.id = static_cast<TokenId>(id);
  if (static_cast<size_t>(id) >= parts->entries.size()) parts->entries.resize(static_cast<size_t>(id) + 1);
  VocabularyEntry& entry = parts->entries[id];
  entry.piece = token.text;
  entry.special |= token.special;
  if (entry.special) entry.bytes.clear();
  if (!entry.special && entry.bytes.empty()) entry.bytes = token.text;
  if (!parts->added.Contains(token.id)) parts->added.Add(std::move(token));
  return absl::OkStatus();
}

// Tokens that transformers adds to a sentencepiece model: added_tokens.json of old, added_tokens_decoder
// since 2023.
absl::Status AddTokens(const SideFiles& files, const std::string& dir, TokenizerParts* parts) {
  const Json& decoder = files.config["added_tokens_decoder"];
  for (const auto& [id, object] : decoder.items()) {
    if (!object.is_object() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos ||
        id.empty()) {
      return absl::InvalidArgumentError(dir + "/tokenizer_config.json: added_tokens_decoder is damaged");
    }
    JsonFields fields(object);
    AddedToken token;
    token.text = fields.Text({"content"}, "");
    token.special = fields.Bool({"special"}, false);
    token.lstrip = fields.Bool({"lstrip"}, false);
    token.rstrip = fields.Bool({"rstrip"}, false);
    token.single_word = fields.Bool({"single_word"}, false);
    BW_RETURN_IF_ERROR(Annotate(fields.status(), dir + "/tokenizer_config.json"));
    BW_RETURN_IF_ERROR(AddToken(std::move(token), std::stoll(id), dir + "/tokenizer_config.json", parts));
  }
  if (!decoder.empty()) return absl::OkStatus();
  const absl::flat_hash_set<std::string> special = SpecialSpellings(files);
  for (const auto& [text, id] : files.added_tokens.items()) {
    AddedToken token{.text = text, .special = special.contains(text)};
    const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
    BW_RETURN_IF_ERROR(AddToken(std::move(token), number, dir + "/added_tokens.json", parts));
  }
  return absl::OkStatus();
}

// Lines of a piece in base64, a space and its rank.
bool IsTiktoken(const std::string& bytes) {
  const std::string line = bytes.substr(0, std::min<size_t>(bytes.find('\n'), 256));
  const size_t space = line.find(' ');
  if (space == std::string::npos || space == 0 || space + 1 == line.size()) return false;
  const auto base64 = [](char c) { return absl::ascii_isalnum(c) || c == '+' || c == '/' || c == '='; };
  return std::all_of(line.begin(), line.begin() + static_cast<ptrdiff_t>(space), base64) &&
         std::all_of(line.begin() + static_cast<ptrdiff_t>(space) + 1, line.end(), absl::ascii_isdigit);
}

absl::StatusOr<TokenizerParts> LoadParts(const std::string& dir, const SideFiles& files,
                                         bool* is_sentencepiece) {
  *is_sentencepiece = false;
  absl::StatusOr<std::string> bytes = ReadSmallFile(dir + "/tokenizer.json", kTokenizerFileBytesMax);
  if (bytes.ok()) return ParseTokenizerJson(*bytes);
  if (!absl::IsNotFound(bytes.status())) return bytes.status();
  *is_sentencepiece = true;
  bytes = ReadSmallFile(dir + "/tokenizer.model", kTokenizerFileBytesMax);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(dir + ": neither tokenizer.json nor tokenizer.model is there");
  }
  BW_RETURN_IF_ERROR(bytes.status());
  if (IsTiktoken(*bytes)) {
    return absl::UnimplementedError(
        "tokenizer.model is tiktoken's, as Llama 3 has it: put the tokenizer.json of the same model beside "
        "it");
  }
  absl::StatusOr<SentencepieceModel> model = ParseSentencepieceModel(*bytes);
  if (!model.ok()) return Annotate(model.status(), "tokenizer.model");
  BW_ASSIGN_OR_RETURN(TokenizerParts parts, MakeScoredBpe(*std::move(model)));
  BW_RETURN_IF_ERROR(AddTokens(files, dir, &parts));
  return parts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromDirectory(const std::string& dir) {
  BW_ASSIGN_OR_RETURN(const SideFiles files, ReadSideFiles(dir));
  bool is_sentencepiece = false;
  absl::StatusOr<TokenizerParts> parts = LoadParts(dir, files, &is_sentencepiece);
  if (absl::IsNotFound(parts.status())) return parts.status();
  if (!parts.ok()) return Annotate(parts.status(), dir);
  BW_RETURN_IF_ERROR(FillBosEos(files, dir, &*parts));
  BW_RETURN_IF_ERROR(FillPrefix(files, dir, is_sentencepiece, &*parts));
  return ComposeTokenizer(*std::move(parts));
}

}  // namespace bellwether
