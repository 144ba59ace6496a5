#pragma once

#include <string>

#include "common/program_flags.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// What --model takes, in every program.
inline constexpr char kModelHelp[] =
    "A directory as Hugging Face or Meta have it, a file of weights (safetensors, torch, GPTQ, GGUF, GGML), "
    "or ORG/NAME in "
    "Hugging Face's cache";

// The flags of ReadOptions, the same for every program that reads a checkpoint. Included by each main and by
// the tool's flags alone, as common/program_flags.h is.
inline void AddReadFlags(CLI::App* app, ReadOptions* options) {
  app->add_option_function<std::string>(
         "--dtype", [options](const std::string& name) { options->dtype = *ParseLoadDType(name); },
         "Round float weights while loading: fp32, bf16 or fp16; auto: as stored")
      ->default_str(LoadDTypeName(options->dtype))
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp16"}));
  app->add_option_function<std::string>(
         "--gptq-bits", [options](const std::string& text) { options->gptq.bits = *ParseGptqBits(text); },
         "GPTQ files without settings, as BELLE's .pt: bits of a weight, 2, 3, 4 or 8 (shapes tell them too)")
      ->check([](const std::string& text) { return std::string(ParseGptqBits(text).status().message()); });
  app->add_option_function<std::string>(
         "--gptq-group", [options](const std::string& text) { options->gptq.group = *ParseGptqGroup(text); },
         "likewise: inputs that share a scale, -1 for all")
      ->check([](const std::string& text) { return std::string(ParseGptqGroup(text).status().message()); });
  // Not a vector option: CLI11 would take "[8]" for a list.
  app->add_option("--lora", CLI::callback_t([options](const CLI::results_t& texts) {
                    options->lora.clear();
                    for (const std::string& text : texts) {
                      if (!text.empty()) options->lora.push_back(*ParseLora(text));
                    }
                    return true;
                  }),
                  "Merge this LoRA adapter of PEFT while loading, PATH[:SCALE]; may be repeated")
      ->type_name("TEXT")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check([](const std::string& text) {
        return text.empty() ? std::string() : std::string(ParseLora(text).status().message());
      });
  AddFlag(
      app, "--billa-base", options->billa_base,
      "BiLLa as it is published: Meta's consolidated.00.pth, whose embedding is subtracted while loading");
}

}  // namespace bellwether
