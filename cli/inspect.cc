#include "cli/inspect.h"

#include <cstdio>
#include <iostream>
#include <map>

#include "absl/strings/str_format.h"
#include "cli/terminal.h"
#include "common/status.h"
#include "model/chat_template/chat_template_hints.h"
#include "model/checkpoint/checkpoint.h"
#include "model/layout.h"
#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using Json = nlohmann::ordered_json;

std::string FormatName(const TensorFormat& format) {
  std::string name(Name(format.format));
  if (IsQuantized(format.format)) {
    absl::StrAppend(&name, " group ", format.group, format.has_offset ? " with offsets" : "");
  }
  return name;
}

Json ConfigJson(const ModelConfig& config) {
  Json json{{"architecture", config.architecture == Architecture::kBloom ? "bloom" : "llama"},
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
            {"slices", SliceCount(config)}};
  if (!config.alibi) json["rope_theta"] = config.rope_theta;
  json["eos"] = config.eos;
  return json;
}

// Sums by storage format.
struct FormatTotal {
  int64_t tensors = 0;
  int64_t parameters = 0;
};

void PrintText(const Json& json) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      std::printf("%s\n", key.c_str());
      for (const auto& [name, inner] : value.items())
        std::printf("  %-18s %s\n", name.c_str(), inner.dump().c_str());
    } else if (value.is_array() && !value.empty() && value.front().is_object()) {
      std::printf("%s\n", key.c_str());
      for (const Json& entry : value) {
        std::printf("  %-40s %-12s %s\n", entry["name"].get<std::string>().c_str(),
                    entry["shape"].dump().c_str(), entry["format"].get<std::string>().c_str());
      }
    } else {
      std::printf("%-20s %s\n", key.c_str(),
                  (value.is_string() ? value.get<std::string>() : value.dump()).c_str());
    }
  }
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
  const std::string family = ChooseChatTemplate(HintsOf(checkpoint))->name;
  json["chat_template"] = family == "none" ? "none: nothing in the checkpoint tells its family" : family;
  return absl::OkStatus();
}

}  // namespace

absl::Status RunInspect(const InspectOptions& options) {
  BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.model));
  Json json{{"path", checkpoint->path()}, {"container", checkpoint->container()}};
  BW_ASSIGN_OR_RETURN(json["model_id"], checkpoint->ModelId());
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
      json["tensors"].push_back({{"name", Name(key)},
                                 {"shape", Json::array({info.rows, info.cols})},
                                 {"format", FormatName(info.format)},
                                 {"source", info.source}});
    }
  }
  if (options.json) {
    std::cout << json.dump(2) << std::endl;
  } else {
    PrintText(json);
  }
  return absl::OkStatus();
}

}  // namespace bellwether
