#include "model/chat_template/chat_template.h"

namespace bellwether {
namespace {

constexpr ChatTemplate ChatMl(const char* name, const char* default_system) {
  return {.name = name,
          .user_before = "<|im_start|>user\n",
          .user_after = "<|im_end|>\n",
          .assistant_before = "<|im_start|>assistant\n",
          .assistant_after = "<|im_end|>\n",
          .prompt = "<|im_start|>assistant\n",
          .system_before = "<|im_start|>system\n",
          .system_after = "<|im_end|>\n",
          .default_system = default_system,
          .add_special_tokens = false,
          .any_order = true,
          .marks = {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}};
}

// Thoughts are part of the answer; later turns are written without them.
constexpr ChatTemplate Qwen3(const char* name, const char* prompt) {
  ChatTemplate result = ChatMl(name, nullptr);
  result.prompt = prompt;
  result.thoughts_end = "</think>";
  return result;
}

constexpr ChatTemplate Llama3(const char* name) {
  return {.name = name,
          .user_before = "<|start_header_id|>user<|end_header_id|>\n\n",
          .user_after = "<|eot_id|>",
          .assistant_before = "<|start_header_id|>assistant<|end_header_id|>\n\n",
          .assistant_after = "<|eot_id|>",
          .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",
          .start = "<|begin_of_text|>",
          .system_before = "<|start_header_id|>system<|end_header_id|>\n\n",
          .system_after = "<|eot_id|>",
          .add_special_tokens = false,
          .trims = true,
          .any_order = true,
          .marks = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                    "<|end_of_text|>", "<|eom_id|>"}};
}

// A system part with these two dates is always there.
constexpr ChatTemplate Llama31() {
  ChatTemplate result = Llama3("llama-3.1");
  result.system_before =
      "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
      "Today Date: 26 Jul 2024\n\n";
  result.default_system = "";
  return result;
}

constexpr ChatTemplate Mistral(const char* name, const char* turn) {
  return {.name = name,
          .user_before = turn,
          .user_after = " [/INST]",
          .assistant_before = " ",
          .assistant_after = "</s>",
          .start = "<s>",
          .system_before = turn,
          .system_after = "\n\n",
          .user_after_system = "",
          .add_special_tokens = false,
          .marks = {"<s>", "</s>"}};
}

constexpr ChatTemplate MistralV3() {
  ChatTemplate result = Mistral("mistral-v3", "[INST] ");
  result.user_after = "[/INST]";
  result.system_in_last_turn = true;
  result.marks = {"<s>", "</s>", "[INST]", "[/INST]"};
  return result;
}

constexpr const char* kAlpacaSystem =
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.";

// Of BELLE's cards for BLOOM and for LLaMA, its ZeRO-Inference script, its web page, and BiLLa's scripts.
constexpr CardParameters kBelleBloom = {
    .temperature = 0.35, .top_k = 30, .top_p = 0.85, .repetition_penalty = 1.2, .max_tokens = 200};
constexpr CardParameters kBelleLlama = {
    .temperature = 0.5, .top_k = 30, .top_p = 0.85, .repetition_penalty = 1.2, .max_tokens = 300};
constexpr CardParameters kBelleZero = {.temperature = 0.9,
                                       .top_k = 30,
                                       .top_p = 0.6,
                                       .repetition_penalty = 1.2,
                                       .max_tokens = 128,
                                       .min_tokens = 1};
constexpr CardParameters kBelleWeb = {.repetition_penalty = 1.2, .max_tokens = 512, .greedy = true};
constexpr CardParameters kBilla = {.temperature = 0.7, .max_tokens = 1024};

constexpr ChatTemplate kTemplates[] = {
    {.name = "none", .single_turn = true},

    // BELLE on BLOOMZ. Where a row's source shows one turn only, turns are joined by an empty line.
    {.name = "belle-7b",
     .user_before = "Human: ",
     .assistant_before = "\n\nAssistant:",
     .assistant_after = "\n\n",
     .prompt = "\n\nAssistant:",
     .trims = true,
     .stop = {"Human:"},
     .card = kBelleBloom},
    {.name = "belle-7b-prose",
     .user_before = "Human: ",
     .assistant_before = " \n\nAssistant:",
     .assistant_after = "\n\n",
     .prompt = " \n\nAssistant:",
     .stop = {"Human:"},
     .card = kBelleBloom},
    {.name = "belle-7b-multi-turn",
     .user_before = "Human:",
     .assistant_before = "\n\nAssistant:",
     .prompt = "\n\nAssistant:",
     .stop = {"Human:"},
     .card = kBelleBloom},

    // BELLE on LLaMA.
    {.name = "belle-llama",
     .user_before = "Human: ",
     .assistant_before = " \n\nAssistant: ",
     .assistant_after = "\n\n",
     .prompt = " \n\nAssistant: ",
     .stop = {"Human:"},
     .card = kBelleLlama},
    {.name = "belle-llama-ext-13b",
     .user_before = "Human: ",
     .assistant_before = " \n\nBelle: ",
     .assistant_after = "\n\n",
     .prompt = " \n\nBelle: ",
     .stop = {"Human:"},
     .card = kBelleLlama},
    {.name = "belle-llama-ext-13b-factory",
     .user_before = "Human: ",
     .assistant_before = "\n\nBelle: ",
     .assistant_after = "\n\n",
     .prompt = "\n\nBelle: ",
     .stop = {"Human:"},
     .card = kBelleLlama},
    {.name = "belle-llama-ext-7b", .single_turn = true},  // a base model: no template works
    {.name = "belle-open-datasets",
     .user_before = "Human: ",
     .assistant_before = " \n\nAssistant: ",
     .assistant_after = "\n\n",
     .prompt = " \n\nAssistant: ",
     .stop = {"Human:"},
     .card = kBelleLlama},
    {.name = "belle-train-v1-eval",
     .user_before = "Human: ",
     .assistant_before = "\n\nAssistant: ",
     .assistant_after = "</s>",
     .prompt = "\n\nAssistant: ",
     .stop = {"Human:"},
     .marks = {"</s>"}},
    {.name = "belle-train",
     .user_before = "Human: \n",
     .assistant_before = "\n\nAssistant: \n",
     .assistant_after = "</s>",
     .prompt = "\n\nAssistant: \n",
     .add_special_tokens = false,
     .stop = {"Human:"},
     .marks = {"</s>"},
     .card = kBelleWeb},
    {.name = "belle-zero-inference",
     .user_before = "Human: \n",
     .assistant_before = "\n\nAssistant:\n",
     .assistant_after = "</s>",
     .prompt = "\n\nAssistant:\n",
     .add_special_tokens = false,
     .stop = {"Human:"},
     .marks = {"</s>"},
     .card = kBelleZero},
    {.name = "belle-llama2-13b",
     .user_before = "Human: \n",
     .assistant_before = "\n\nAssistant:",
     .assistant_after = "\n",
     .prompt = "\n\nAssistant:\n",
     .add_special_tokens = false,
     .trims = true,
     .stop = {"Human:"},
     .card = kBelleZero},

    // BiLLa.
    {.name = "billa",
     .user_before = "Human: ",
     .assistant_before = "\nAssistant: ",
     .assistant_after = "\n",
     .prompt = "\nAssistant: ",
     .stop = {"Human:"},
     .card = kBilla},
    {.name = "billa-fastchat",
     .user_before = "Human: ",
     .assistant_before = "\nAssistant: ",
     .assistant_after = "\n",
     .prompt = "\nAssistant: ",
     .system_before = "",
     .system_after = "\n",
     .default_system = "",  // an empty system part still ends its line: the leading newline is right
     .stop = {"Human:"},
     .card = kBilla},
    {.name = "billa-training",
     .user_before = "Human: ",
     .assistant_before = "\nAssistant: ",
     .assistant_after = "</s>",
     .prompt = "\nAssistant: ",
     .stop = {"Human:"},
     .marks = {"</s>"},
     .card = kBilla},

    // Alpaca.
    {.name = "alpaca",
     .user_before = "### Instruction:\n",
     .assistant_before = "\n\n### Response:\n",
     .assistant_after = "</s>\n\n",
     .prompt = "\n\n### Response:\n",
     .system_before = "",
     .system_after = "\n\n",
     .default_system = kAlpacaSystem,
     .stop = {"### Instruction:"},
     .marks = {"</s>"}},
    {.name = "alpaca-fastchat",
     .user_before = "### Instruction: ",
     .assistant_before = "\n\n### Response: ",
     .assistant_after = "</s>",
     .prompt = "\n\n### Response:",
     .system_before = "",
     .system_after = "\n\n",
     .default_system = kAlpacaSystem,
     .stop = {"### Instruction:"},
     .marks = {"</s>"}},

    // Llama.
    {.name = "llama-2",
     .user_before = "<s>[INST] ",
     .user_after = " [/INST]",
     .assistant_before = " ",
     .assistant_after = " </s>",
     .system_before = "<s>[INST] <<SYS>>\n",
     .system_after = "\n<</SYS>>\n\n",
     .user_after_system = "",
     .add_special_tokens = false,
     .trims = true,
     .marks = {"<s>", "</s>"}},
    Llama3("llama-3"),
    Llama31(),

    // Mistral.
    Mistral("mistral-v1", "[INST] "),
    Mistral("mistral-v1-spaced", " [INST] "),
    MistralV3(),

    // ChatML, by default system prompt.
    ChatMl("chatml", nullptr),
    ChatMl("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    ChatMl("qwen2", "You are a helpful assistant."),
    ChatMl("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    ChatMl("qwen2.5-math", "Please reason step by step, and put your final answer within \\boxed{}."),
    Qwen3("qwen3", "<|im_start|>assistant\n"),
    Qwen3("qwen3-thinking", "<|im_start|>assistant\n<think>\n"),
    Qwen3("qwen3-no-thinking", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
};

}  // namespace

absl::Span<const ChatTemplate> ChatTemplates() { return kTemplates; }

}  // namespace bellwether
