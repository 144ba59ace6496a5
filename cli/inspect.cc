#include "cli/inspect.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/json.h"
#include "common/output.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/chat_template/chat_template_hints.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/open_contents.h"
#include "model/layout.h"
#include "model/option_names.h"
#include "model/shard_size.h"

namespace bellwether {
namespace {

std::string FormatName(const TensorFormat& format) {
  std::string name(Name(format.format));
  if (IsQuantized(format.format)) {
    absl::StrAppend(&name, " group ", format.group, format.has_offset ? " with offsets" : "",
                    format.reordered ? " reordered" : "");
  }
  return name;
}

Json ConfigJson(const ModelConfig& config) {
  Json json = Json::object({{"architecture", std::string(Name(config.architecture))},
                            {"layers", config.layers},
                            {"hidden", config.hidden},
                            {"heads", config.heads},
                            {"kv_heads", config.kv_heads},
                            {"head_dim", config.head_dim},
                            {"ffn", config.ffn},
                            {"vocab", config.vocab},
                            {"max_positions", config.max_positions},
                            {"positions", config.alibi          ? "alibi"
                                          : config.rope_scaling ? "rope, llama3 scaling"
                                                                : "rope"},
                            {"tied_head", config.tied_head},
                            {"slices", SliceCount(config)}});
  if (!config.alibi) json["rope_theta"] = config.rope_theta;
  json["eos"] = config.eos;
  return json;
}

// Of one worker that holds everything.
absl::StatusOr<int64_t> LoadedBytes(const Checkpoint& checkpoint) {
  BW_ASSIGN_OR_RETURN(const Layout layout, EvenLayout(checkpoint.config(), /*stages=*/1, /*ranks=*/1));
  return ShardBytes(checkpoint.config(), CheckpointFormats(checkpoint), Quantize::kNone, layout.stages[0],
                    /*rank=*/0, {.first_stage = true, .last_stage = true});
}

// Sums by storage format.
struct FormatTotal {
  int64_t tensors = 0;
  int64_t parameters = 0;
};

// A text stands for itself, everything else as JSON has it.
std::string Shown(const Json& value) {
  return value.is_string() ? Printable(value.text()) : WriteJson(value);
}

std::string Text(const Json& json) {
  std::string text;
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      absl::StrAppend(&text, key, "\n");
      for (const auto& [name, inner] : value.items())
        absl::StrAppendFormat(&text, "  %-18s %s\n", name, WriteJson(inner));
    } else if (value.front().is_object()) {
      absl::StrAppend(&text, key, "\n");
      for (const Json& entry : value) {
        absl::StrAppendFormat(&text, "  %-40s %-12s %s\n", Shown(entry["name"]), Shown(entry["shape"]),
                              Shown(entry["format"]));
      }
    } else {
      absl::StrAppendFormat(&text, "%-20s %s\n", key, Shown(value));
    }
  }
  return text;
}

// Without a tokenizer a checkpoint serves token ids; one that is there and cannot be read serves nobody.
absl::Status AddTokenizer(const Checkpoint& checkpoint, Json& json) {
  const auto tokenizer = checkpoint.LoadTokenizer();
  if (absl::IsNotFound(tokenizer.status())) {
    json["tokenizer"] = absl::StrCat("none: ", std::string(tokenizer.status().message()));
    json["chat_template"] = "none: chat needs a tokenizer";
    return absl::OkStatus();
  }
  BW_RETURN_IF_ERROR(tokenizer.status());
  json["tokenizer"] = absl::StrCat((*tokenizer)->vocab_size(), " tokens");
  const ChatTemplateChoice choice = ChooseChatTemplate(HintsOf(checkpoint));
  json["chat_template"] = choice.chosen->name;
  json["chat_template_reason"] = choice.reason;
  return absl::OkStatus();
}

}  // namespace

absl::Status RunInspect(const InspectOptions& options) {
  BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenContents(options.model, options.read));
  const std::vector<std::string> warnings = contents.warnings;
  const auto checkpoint = std::make_unique<const Checkpoint>(std::move(contents));
  Json json = Json::object({{"path", checkpoint->path()}, {"container", checkpoint->container()}});
  BW_ASSIGN_OR_RETURN(json["model_id"], checkpoint->ModelId());
  for (const auto& [flag, value] : checkpoint->reading()) json["read_with"][flag] = value;
  if (!warnings.empty()) json["warnings"] = warnings;
  json["config"] = ConfigJson(checkpoint->config());

  std::map<std::string, FormatTotal> totals;
  int64_t parameters = 0;
  for (const TensorKey& key : checkpoint->Keys()) {
    const TensorInfo& info = *checkpoint->Find(key);
    FormatTotal& total = totals[FormatName(info.format)];
    ++total.tensors;
    total.parameters += info.rows * info.cols;
    parameters += info.rows * info.cols;
  }
  json["parameters"] = parameters;
  json["stored_bytes"] = checkpoint->StoredBytes();
  BW_ASSIGN_OR_RETURN(json["loaded_bytes"], LoadedBytes(*checkpoint));
  for (const auto& [name, total] : totals) {
    json["formats"][name] =
        absl::StrFormat("%d tensors, %.3f M values", total.tensors, total.parameters / 1e6);
  }
  BW_RETURN_IF_ERROR(AddTokenizer(*checkpoint, json));
  json["chat_template_text"] =
      checkpoint->chat_template_text().empty() ? "none" : "carried by the checkpoint";
  if (options.tensors) {
    for (const TensorKey& key : checkpoint->Keys()) {
      const TensorInfo& info = *checkpoint->Find(key);
      json["tensors"].push_back(Json::object({{"name", Name(key)},
                                              {"shape", Json::array({info.rows, info.cols})},
                                              {"format", FormatName(info.format)},
                                              {"source", info.source}}));
    }
  }
  return WriteOutput(options.json ? WriteJson(json, /*indent=*/2) + "\n" : Text(json));
}

}  // namespace bellwether
