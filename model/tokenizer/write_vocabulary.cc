#include "model/tokenizer/write_vocabulary.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"
#include "model/tokenizer/bytes_map.h"
#include "model/tokenizer/gguf_vocabulary.h"
#include "model/tokenizer/known_patterns.h"
#include "model/tokenizer/sentencepiece_model.h"

namespace bellwether {
namespace {

using PieceType = SentencepieceModel::PieceType;
using Ids = BytesViewMap<TokenId>;

// By spelling.
absl::StatusOr<Ids> IdsOf(const GgufVocabulary& v) {
  Ids ids;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const std::string& piece = v.tokens[id];
    if (piece.empty()) return absl::InvalidArgumentError(absl::StrCat("piece ", id, " is empty"));
    BW_RETURN_IF_ERROR(CheckUtf8(absl::StrCat("piece ", id), piece));
    const auto [other, is_new] = ids.emplace(piece, static_cast<TokenId>(id));
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("pieces ", other->second, " and ", id, " are both ", Quoted(piece)));
    }
  }
  return ids;
}

Json Spelling(const GgufVocabulary& v, std::optional<TokenId> id) {
  return id.has_value() ? Json(v.tokens[*id]) : Json();
}

std::string ConfigText(const GgufVocabulary& v, const std::string& chat_template) {
  Json config = Json::object({{"bos_token", Spelling(v, v.bos_id)},
                              {"eos_token", Spelling(v, v.eos_id)},
                              {"unk_token", Spelling(v, v.unknown_id)},
                              {"pad_token", Spelling(v, v.padding_id)},
                              {"clean_up_tokenization_spaces", false}});
  if (v.model == "llama") {
    config["tokenizer_class"] = "LlamaTokenizer";
    config["add_bos_token"] = *v.add_bos;
    config["add_eos_token"] = *v.add_eos;
    config["legacy"] = true;  // the space before a text is put after special tokens too
  } else {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
  }
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  return WriteJson(config, /*indent=*/2) + "\n";
}

Json AddedTokens(const GgufVocabulary& v) {
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const PieceType type = TypeOf(v, id);
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown;
    if (!special && type != PieceType::kUserDefined) continue;
    added.push_back(Json::object({{"id", id},
                                  {"content", v.tokens[id]},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", special}}));
  }
  return added;
}

// Every pattern's matches stand alone, one pattern after the other; then bytes are spelled as GPT-2 does.
Json PreTokenizers(const KnownPreTokenizer& known) {
  Json steps = Json::array();
  for (const char* pattern : known.patterns) {
    steps.push_back(Json::object({{"type", "Split"},
                                  {"pattern", Json::object({{"Regex", pattern}})},
                                  {"behavior", "Isolated"},
                                  {"invert", false}}));
  }
  steps.push_back(Json::object(
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}));
  return Json::object({{"type", "Sequence"}, {"pretokenizers", std::move(steps)}});
}

Json ByteLevelDecoder() {
  return Json::object(
      {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}});
}

// What is put around a text; null if nothing is.
Json PostProcessor(const GgufVocabulary& v) {
  if (!*v.add_bos && !*v.add_eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add_token = [&](TokenId id, int64_t type, Json& to) {
    const std::string& text = v.tokens[id];
    to.push_back(Json::object({{"SpecialToken", Json::object({{"id", text}, {"type_id", type}})}}));
    special[text] = Json::object({{"id", text}, {"ids", Json::array({id})}, {"tokens", Json::array({text})}});
  };
  const auto add_text = [&](const char* name, int64_t type, Json& to) {
    if (*v.add_bos) add_token(*v.bos_id, type, to);
    to.push_back(Json::object({{"Sequence", Json::object({{"id", name}, {"type_id", type}})}}));
    if (*v.add_eos) add_token(*v.eos_id, type, to);
  };
  add_text("A", 0, single);
  add_text("A", 0, pair);
  add_text("B", 1, pair);
  return Json::object({{"type", "TemplateProcessing"},
                       {"single", std::move(single)},
                       {"pair", std::move(pair)},
                       {"special_tokens", std::move(special)}});
}

// Merges with a part or a result that is no token never apply, and are left out.
absl::StatusOr<Json> BpeModel(const GgufVocabulary& v, bool ignore_merges) {
  BW_ASSIGN_OR_RETURN(const Ids ids, IdsOf(v));
  Json::Object vocabulary;
  for (size_t id = 0; id < v.tokens.size(); ++id) vocabulary.emplace_back(v.tokens[id], id);
  Json merges = Json::array();
  for (const std::string& merge : v.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) continue;
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    if (ids.contains(left) && ids.contains(right) && ids.contains(left + right))
      merges.push_back(Json::array({left, right}));
  }
  return Json::object({{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", ignore_merges},
                       {"vocab", Json(std::move(vocabulary))},
                       {"merges", std::move(merges)}});
}

absl::StatusOr<TokenizerFile> WriteByteLevel(const GgufVocabulary& v) {
  BW_ASSIGN_OR_RETURN(const KnownPreTokenizer known, FindKnownPreTokenizer(v.pre));
  BW_ASSIGN_OR_RETURN(Json model, BpeModel(v, known.ignore_merges));
  const Json file = Json::object({{"version", "1.0"},
                                  {"truncation", nullptr},
                                  {"padding", nullptr},
                                  {"added_tokens", AddedTokens(v)},
                                  {"normalizer", nullptr},
                                  {"pre_tokenizer", PreTokenizers(known)},
                                  {"post_processor", PostProcessor(v)},
                                  {"decoder", ByteLevelDecoder()},
                                  {"model", std::move(model)}});
  return TokenizerFile{"tokenizer.json", WriteJson(file, /*indent=*/1) + "\n"};
}

absl::StatusOr<TokenizerFile> WriteScored(const GgufVocabulary& v) {
  SentencepieceModel model = SentencepieceOf(v);
  model.bos_id = v.bos_id;
  model.eos_id = v.eos_id;
  model.padding_id = v.padding_id;
  const std::string file = WriteSentencepieceModel(model);
  BW_RETURN_IF_ERROR(ParseSentencepieceModel(file).status());
  return TokenizerFile{"tokenizer.model", file};
}

}  // namespace

absl::StatusOr<std::vector<TokenizerFile>> WriteVocabulary(GgufVocabulary v,
                                                           const std::string& chat_template) {
  // Whatever keeps a tokenizer from being made of it.
  BW_RETURN_IF_ERROR(MakeTokenizerFromGguf(v).status());
  BW_RETURN_IF_ERROR(SettleVocabulary(&v));
  BW_ASSIGN_OR_RETURN(TokenizerFile file, v.model == "llama" ? WriteScored(v) : WriteByteLevel(v));
  std::vector<TokenizerFile> files = {std::move(file)};
  files.push_back({"tokenizer_config.json", ConfigText(v, chat_template)});
  if (v.eot_id.has_value()) {
    Json ends = Json::array();
    for (const std::optional<TokenId>& id : {v.eos_id, v.eot_id}) {
      if (id.has_value()) ends.push_back(*id);
    }
    const Json generation = Json::object({{"eos_token_id", std::move(ends)}});
    files.push_back({"generation_config.json", WriteJson(generation, /*indent=*/2) + "\n"});
  }
  return files;
}

}  // namespace bellwether
