#include "model/checkpoint/ggml_checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/meta_names.h"
#include "model/checkpoint/stored_tensor.h"

namespace bellwether {
namespace {

constexpr int kUnknownId = 0, kBosId = 1, kEosId = 2, kFirstByteId = 3, kBytes = 256;
// Of LLaMA's pieces the first after the bytes alone was not learned; it joins last.
constexpr const char* kTwoBlanks = "\u2581\u2581";
constexpr float kNever = -1e9f;
// Types of GgufVocabulary::token_types.
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

const BlockTensor* Find(const GgmlFile& ggml, const char* name) {
  const auto found = std::find_if(ggml.tensors.begin(), ggml.tensors.end(),
                                  [name](const BlockTensor& tensor) { return tensor.name == name; });
  return found == ggml.tensors.end() ? nullptr : &*found;
}

absl::Status AddTensor(const BlockTensor& tensor, const std::shared_ptr<const FileMapping>& file,
                       const ModelConfig& config, TensorTable& table) {
  const std::optional<TensorKey> key = ParseMetaName(tensor.name);
  const std::string source = absl::StrCat(file->path(), ": tensor '", tensor.name, "'");
  if (!key.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, " is not known in LLaMA; it may change the maths, so it is not passed over"));
  }
  BW_ASSIGN_OR_RETURN(StoredTensor stored, StoreTensor(tensor, file, source));
  // Meta's order: the two halves of each head are interleaved.
  if (key->role == TensorRole::kQuery || key->role == TensorRole::kKey)
    stored.rows = {.head_rows = config.head_dim, .head_stride = config.head_dim, .interleaved = true};
  return table.Add(*key, stored);
}

// Files of 13B and more came in parts, each with a share of every matrix.
absl::Status RefuseParts(const std::string& path) {
  const absl::StatusOr<std::shared_ptr<const FileMapping>> next = FileMapping::Open(path + ".1");
  if (!next.ok() || !IsGgml((*next)->bytes())) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(path, ": the first of several parts (there is ", path,
                                               ".1), which are not joined; a file in one part is read"));
}

}  // namespace

absl::StatusOr<ModelConfig> GgmlConfig(const GgmlFile& ggml) {
  const BlockTensor* key = Find(ggml, "layers.0.attention.wk.weight");
  const BlockTensor* gate = Find(ggml, "layers.0.feed_forward.w1.weight");
  if (key == nullptr || gate == nullptr)
    return absl::InvalidArgumentError("the first layer has no attention.wk.weight or feed_forward.w1.weight");
  const int64_t head_dim = ggml.hidden / ggml.heads;
  if (ggml.hidden % ggml.heads != 0 || ggml.rotary != head_dim || key->rows % head_dim != 0) {
    return absl::InvalidArgumentError(absl::StrCat(ggml.heads, " heads, ", ggml.rotary,
                                                   " columns turned and ", key->rows,
                                                   " rows of keys do not fit a width of ", ggml.hidden));
  }
  if (gate->rows > kFfnMax || key->rows / head_dim > kHeadsMax)
    return absl::InvalidArgumentError("the first layer is larger than any that is known");
  ModelConfig config{.layers = ggml.layers,
                     .hidden = ggml.hidden,
                     .heads = ggml.heads,
                     .kv_heads = static_cast<int32_t>(key->rows / head_dim),
                     .head_dim = static_cast<int32_t>(head_dim),
                     .ffn = static_cast<int32_t>(gate->rows),
                     .vocab = ggml.vocab,
                     .max_positions = 2048,
                     .norm_epsilon = 1e-6,
                     .tied_head = Find(ggml, "output.weight") == nullptr,
                     .bos = kBosId,
                     .eos = {kEosId}};
  BW_RETURN_IF_ERROR(Validate(config));
  return config;
}

GgufVocabulary GgmlVocabulary(const GgmlFile& ggml) {
  GgufVocabulary vocabulary{.model = "llama",
                            .tokens = ggml.pieces,
                            .scores = ggml.scores,
                            .token_types = std::vector<int32_t>(ggml.pieces.size(), kNormal),
                            .bos_id = kBosId,
                            .eos_id = kEosId,
                            .unknown_id = kUnknownId,
                            .add_bos = true};
  for (int id = 0; id < static_cast<int>(vocabulary.tokens.size()); ++id) {
    std::string& piece = vocabulary.tokens[id];
    if (const int byte = id - kFirstByteId; 0 <= byte && byte < kBytes) {
      piece = absl::StrFormat("<0x%02X>", byte);
      vocabulary.token_types[id] = kByte;
    } else {
      piece = absl::StrReplaceAll(piece, {{" ", "\u2581"}});
    }
    if (ggml.scores.empty())
      vocabulary.scores.push_back(piece == kTwoBlanks ? kNever : -static_cast<float>(id));
  }
  // The programs that wrote these files gave special tokens no text, or one for display.
  constexpr const char* kSpecial[] = {"<unk>", "<s>", "</s>"};
  for (size_t id = 0; id < std::size(kSpecial) && id < vocabulary.tokens.size(); ++id) {
    vocabulary.tokens[id] = kSpecial[id];
    vocabulary.token_types[id] = id == kUnknownId ? kUnknown : kControl;
  }
  return vocabulary;
}

absl::StatusOr<CheckpointContents> OpenGgmlCheckpoint(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  BW_RETURN_IF_ERROR(RefuseParts(path));
  absl::StatusOr<GgmlFile> parsed = GgmlFile::Parse(file->bytes());
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  const auto ggml = std::make_shared<const GgmlFile>(*std::move(parsed));

  CheckpointContents contents;
  contents.path = path;
  contents.container = ggml->container;
  absl::StatusOr<ModelConfig> config = GgmlConfig(*ggml);
  if (!config.ok()) return Annotate(config.status(), path);
  contents.config = *std::move(config);
  TensorTable table(contents.config);
  for (const BlockTensor& tensor : ggml->tensors)
    BW_RETURN_IF_ERROR(AddTensor(tensor, file, contents.config, table));
  auto finished = std::move(table).Finish();
  if (!finished.ok()) return Annotate(finished.status(), path);
  contents.tensors = *std::move(finished);
  contents.tokenizer.vocabulary = [ggml] { return GgmlVocabulary(*ggml); };
  return contents;
}

}  // namespace bellwether
