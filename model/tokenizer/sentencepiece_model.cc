#include "model/tokenizer/sentencepiece_model.h"

#include <bitset>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/tokenizer/byte_piece.h"
#include "model/tokenizer/bytes_map.h"
#include "model/tokenizer/wire_reader.h"

namespace bellwether {
namespace {

using Field = WireReader::Field;
using PieceType = SentencepieceModel::PieceType;

constexpr uint64_t kBpe = 2;  // of the kinds of models

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("sentencepiece model is damaged: ", what));
}

// What the trainer's part of the file adds to the model.
struct TrainerSpec {
  uint64_t model_type = 1;  // unigram, unless the file says otherwise
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string bos_piece = "<s>", eos_piece = "</s>", padding_piece = "<pad>";
};

absl::Status ReadPiece(std::string_view message, SentencepieceModel* model) {
  if (model->pieces.size() >= kMaxVocabulary)
    return Damaged(absl::StrCat("more than ", kMaxVocabulary, " pieces"));
  SentencepieceModel::Piece piece;
  WireReader reader(message);
  while (const std::optional<Field> field = reader.Next()) {
    if (field->number == 1 && field->wire_type == 2) piece.text = field->bytes;
    if (field->number == 2 && field->wire_type == 5) piece.score = field->AsFloat();
    if (field->number == 3 && field->wire_type == 0) {
      if (field->value < 1 || field->value > 6) {
        return Damaged(absl::StrCat("piece ", model->pieces.size(), " has the unknown type ", field->value));
      }
      piece.type = static_cast<PieceType>(field->value);
    }
  }
  if (reader.damaged()) return Damaged(absl::StrCat("piece ", model->pieces.size()));
  model->pieces.push_back(std::move(piece));
  return absl::OkStatus();
}

absl::Status ReadTrainerSpec(std::string_view message, TrainerSpec* spec) {
  WireReader reader(message);
  while (const std::optional<Field> field = reader.Next()) {
    if (field->wire_type == 0) {
      if (field->number == 3) spec->model_type = field->value;
      if (field->number == 24) spec->whitespace_as_suffix = field->value != 0;
      if (field->number == 35) spec->byte_fallback = field->value != 0;
    } else if (field->wire_type == 2) {
      if (field->number == 46) spec->bos_piece = field->bytes;
      if (field->number == 47) spec->eos_piece = field->bytes;
      if (field->number == 48) spec->padding_piece = field->bytes;
    }
  }
  return reader.damaged() ? Damaged("trainer_spec") : absl::OkStatus();
}

absl::Status ReadNormalizerSpec(std::string_view message, bool denormalizer, SentencepieceModel* model) {
  std::string name;
  bool has_map = false;
  WireReader reader(message);
  while (const std::optional<Field> field = reader.Next()) {
    if (field->number == 1 && field->wire_type == 2) name = field->bytes;
    if (field->number == 2 && field->wire_type == 2) has_map = !field->bytes.empty();
    if (field->wire_type != 0 || denormalizer) continue;
    if (field->number == 3) model->add_dummy_prefix = field->value != 0;
    if (field->number == 4) model->remove_extra_whitespaces = field->value != 0;
    if (field->number == 5) model->escape_whitespaces = field->value != 0;
  }
  if (reader.damaged()) return Damaged("normalizer_spec");
  if (has_map) {
    return absl::UnimplementedError(absl::StrCat("sentencepiece normalisation map ", Quoted(name),
                                                 " is not supported; only \"identity\" is"));
  }
  return absl::OkStatus();
}

absl::Status CheckTrainerSpec(const TrainerSpec& spec) {
  if (spec.model_type != kBpe) {
    static constexpr const char* kKinds[] = {"?", "unigram", "bpe", "word", "char"};
    const char* kind = spec.model_type < 5 ? kKinds[spec.model_type] : "unknown";
    return absl::UnimplementedError(
        absl::StrCat("sentencepiece model of kind ", kind, " is not supported; only bpe is"));
  }
  if (spec.whitespace_as_suffix) {
    return absl::UnimplementedError("sentencepiece model with treat_whitespace_as_suffix is not supported");
  }
  return absl::OkStatus();
}

void FindNamedPieces(const TrainerSpec& spec, SentencepieceModel* model) {
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    const SentencepieceModel::Piece& piece = model->pieces[id];
    const TokenId token = static_cast<TokenId>(id);
    if (piece.type == PieceType::kUnknown) model->unknown_id = token;
    if (piece.type != PieceType::kControl) continue;
    if (piece.text == spec.bos_piece) model->bos_id = token;
    if (piece.text == spec.eos_piece) model->eos_id = token;
    if (piece.text == spec.padding_piece) model->padding_id = token;
  }
}

// Sentencepiece itself refuses these; GGUF files live with them.
absl::Status CheckSpellings(const SentencepieceModel& model) {
  BytesViewMap<size_t> seen;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const std::string& text = model.pieces[id].text;
    if (text.empty()) return Damaged(absl::StrCat("piece ", id, " is empty"));
    const auto [other, is_new] = seen.emplace(text, id);
    if (!is_new) {
      return Damaged(absl::StrCat("pieces ", other->second, " and ", id, " are both ", Quoted(text)));
    }
  }
  return absl::OkStatus();
}

// Fields of a message, appended to a text.
class WireWriter {
 public:
  void AddNumber(uint32_t field, uint64_t value) {
    AddVarint(uint64_t{field} << 3);
    AddVarint(value);
  }
  void AddBytes(uint32_t field, std::string_view bytes) {
    AddVarint(uint64_t{field} << 3 | 2);
    AddVarint(bytes.size());
    text_.append(bytes);
  }
  void AddFloat(uint32_t field, float value) {
    AddVarint(uint64_t{field} << 3 | 5);
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  const std::string& text() const { return text_; }

 private:
  void AddVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }

  std::string text_;
};

// The number and the spelling of each piece that has a name; sentencepiece takes -1 for none.
std::string TrainerSpecText(const SentencepieceModel& model) {
  struct Named {
    std::optional<TokenId> id;
    uint32_t id_field, piece_field;
  };
  const Named all[] = {
      {model.unknown_id, 40, 45}, {model.bos_id, 41, 46}, {model.eos_id, 42, 47}, {model.padding_id, 43, 48}};
  WireWriter spec;
  spec.AddNumber(3, kBpe);
  spec.AddNumber(4, model.pieces.size());
  spec.AddNumber(35, model.byte_fallback ? 1 : 0);
  for (const Named& named : all) {
    spec.AddNumber(named.id_field, static_cast<uint64_t>(int64_t{named.id.value_or(-1)}));
    if (named.id.has_value()) spec.AddBytes(named.piece_field, model.pieces[*named.id].text);
  }
  return spec.text();
}

}  // namespace

std::string WriteSentencepieceModel(const SentencepieceModel& model) {
  WireWriter file;
  for (const SentencepieceModel::Piece& piece : model.pieces) {
    WireWriter message;
    message.AddBytes(1, piece.text);
    message.AddFloat(2, piece.score);
    message.AddNumber(3, static_cast<uint64_t>(piece.type));
    file.AddBytes(1, message.text());
  }
  file.AddBytes(2, TrainerSpecText(model));
  WireWriter normalizer;
  normalizer.AddBytes(1, "identity");
  normalizer.AddNumber(3, model.add_dummy_prefix ? 1 : 0);
  normalizer.AddNumber(4, model.remove_extra_whitespaces ? 1 : 0);
  normalizer.AddNumber(5, model.escape_whitespaces ? 1 : 0);
  file.AddBytes(3, normalizer.text());
  return file.text();
}

absl::StatusOr<SentencepieceModel> ParseSentencepieceModel(std::string_view file) {
  SentencepieceModel model;
  TrainerSpec trainer;
  WireReader reader(file);
  while (const std::optional<Field> field = reader.Next()) {
    if (field->wire_type != 2) continue;
    if (field->number == 1) BW_RETURN_IF_ERROR(ReadPiece(field->bytes, &model));
    if (field->number == 2) BW_RETURN_IF_ERROR(ReadTrainerSpec(field->bytes, &trainer));
    if (field->number == 3)
      BW_RETURN_IF_ERROR(ReadNormalizerSpec(field->bytes, /*denormalizer=*/false, &model));
    if (field->number == 5)
      BW_RETURN_IF_ERROR(ReadNormalizerSpec(field->bytes, /*denormalizer=*/true, &model));
  }
  if (reader.damaged()) return Damaged("a field of the file cannot be read; is it cut short?");
  BW_RETURN_IF_ERROR(CheckTrainerSpec(trainer));
  model.byte_fallback = trainer.byte_fallback;
  FindNamedPieces(trainer, &model);
  BW_RETURN_IF_ERROR(CheckSpellings(model));
  BW_RETURN_IF_ERROR(ValidateSentencepieceModel(model));
  return model;
}

absl::Status ValidateSentencepieceModel(const SentencepieceModel& model) {
  if (model.pieces.empty()) return Damaged("it has no pieces");
  if (model.pieces.size() > kMaxVocabulary)
    return Damaged(absl::StrCat("more than ", kMaxVocabulary, " pieces"));
  std::bitset<256> bytes;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencepieceModel::Piece& piece = model.pieces[id];
    if (!std::isfinite(piece.score))
      return Damaged(absl::StrCat("piece ", id, " has a score that is no number"));
    if (piece.type != PieceType::kByte) continue;
    const std::optional<uint8_t> byte = ByteOfPiece(piece.text);
    if (!byte) return Damaged(absl::StrCat("byte piece ", id, " is spelled ", Quoted(piece.text)));
    bytes.set(*byte);
  }
  if (model.byte_fallback && !bytes.all()) {
    return Damaged(absl::StrCat("byte fallback with pieces for only ", bytes.count(), " bytes"));
  }
  if (!model.byte_fallback && !model.unknown_id) return Damaged("neither byte pieces nor an unknown piece");
  return absl::OkStatus();
}

}  // namespace bellwether
