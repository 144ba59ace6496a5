#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/quote.h"
#include "model/chat_template/chat_template.h"
#include "model/model_names.h"

namespace bellwether {
namespace {

bool Has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Of those of Qwen 3. Line feeds are escaped in Jinja's strings, or not.
const char* ByThoughts(std::string_view text) {
  const bool always = Has(text, "assistant\\n<think>\\n' }}") || Has(text, "assistant\n<think>\n' }}");
  return always && !Has(text, "enable_thinking") ? "qwen3-thinking" : "qwen3";
}

// Whether [INST] follows BOS at once, however Jinja writes that. Where BOS stands once, a loop is between.
bool HasInstAfterBos(std::string_view text) {
  constexpr std::string_view kBos = "bos_token";
  for (size_t at = text.find(kBos); at != text.npos; at = text.find(kBos, at + 1)) {
    const size_t next = text.find_first_not_of(" \n{}-+~'\"", at + kBos.size());
    if (next != text.npos && text.substr(next).starts_with("[INST]")) return true;
  }
  return false;
}

// Llama 2 begins every turn with <s> and has a place for a system message. Mistral's later families have
// other marks beside these, or no spaces (tekken), which no tokenizer here reads.
const char* ByInst(std::string_view text) {
  if (Has(text, "<<SYS>>") || HasInstAfterBos(text)) return "llama-2";
  if (Has(text, "[SYSTEM_PROMPT]") || Has(text, "\"[INST]\"")) return nullptr;
  if (Has(text, "eos_token") && Has(text, " [/INST]"))
    return Has(text, "' [INST] ") || Has(text, "\" [INST] ") ? "mistral-v1-spaced" : "mistral-v1";
  return Has(text, "eos_token") && Has(text, "[INST] ") ? "mistral-v3" : "llama-2";
}

// By marks that only one family's template has.
const char* ByTemplateText(std::string_view text) {
  if (Has(text, "<|im_start|>")) {
    if (Has(text, "named SmolLM, trained by Hugging Face")) return "smollm2";
    if (Has(text, "You are Qwen, created by Alibaba Cloud")) return "qwen2.5";
    if (Has(text, "put your final answer within")) return "qwen2.5-math";
    if (Has(text, "You are a helpful assistant")) return "qwen2";
    return Has(text, "</think>") ? ByThoughts(text) : "chatml";
  }
  if (Has(text, "<|start_header_id|>")) return Has(text, "Cutting Knowledge Date") ? "llama-3.1" : "llama-3";
  if (Has(text, "[INST]")) return ByInst(text);
  if (Has(text, "### Instruction:")) return "alpaca";
  return nullptr;
}

const char* BelleByName(const NameWords& name, const ChatTemplateHints& hints) {
  constexpr int64_t kExtendedVocabulary = 79458;
  if (name.Have({"open", "datasets"})) return "belle-open-datasets";
  if (name.HaveVersion("llama", "2")) return "belle-llama2-13b";
  if (name.Have({"ext"}) || hints.vocab_size == kExtendedVocabulary) {
    return name.Have({"13b"}) ? "belle-llama-ext-13b" : "belle-llama-ext-7b";
  }
  if (name.Have({"llama"}) || hints.architecture == "llama") return "belle-llama";
  return "belle-7b";
}

const char* ByName(std::string_view text, const ChatTemplateHints& hints) {
  const NameWords name(text);
  if (name.Have({"belle"}) || name.Have({"chatbelle"})) return BelleByName(name, hints);
  if (name.Have({"billa"})) return name.Have({"llm"}) ? "none" : "billa";
  if (name.Have({"alpaca"})) return "alpaca";
  const bool instruct = name.Have({"instruct"});
  if (instruct && name.HaveVersion("smollm", "2")) return "smollm2";
  if (instruct && name.HaveVersion("qwen", "2.5")) return name.Have({"math"}) ? "qwen2.5-math" : "qwen2.5";
  if (instruct && name.HaveVersion("qwen", "2")) return "qwen2";
  const bool foreign = name.Have({"base"}) || name.Have({"deepseek"});  // R1-0528-Qwen3 has DeepSeek's marks
  if (name.HaveVersion("qwen", "3") && !foreign) return name.Have({"thinking"}) ? "qwen3-thinking" : "qwen3";
  if (instruct && name.HaveMinorVersion("llama", "3")) return "llama-3.1";
  if (instruct && name.HaveVersion("llama", "3")) return "llama-3";
  if (name.Have({"chat"}) && name.HaveVersion("llama", "2")) return "llama-2";
  return nullptr;
}

ChatTemplateChoice Choose(const char* name, std::string reason) {
  const ChatTemplate* chosen = FindChatTemplate(name);
  BW_CHECK(chosen != nullptr);
  return {.chosen = chosen, .reason = std::move(reason)};
}

// What the checkpoint says of itself comes before what somebody called its file.
ChatTemplateChoice ChooseByName(const ChatTemplateHints& hints) {
  if (const char* name = ByName(hints.model_name, hints)) {
    return Choose(name, absl::StrCat("its general.name ", Quoted(hints.model_name)));
  }
  for (const std::string& file_name : hints.file_names) {
    if (const char* name = ByName(file_name, hints)) {
      return Choose(name, absl::StrCat("its name ", Quoted(file_name)));
    }
  }
  return Choose("none", "nothing in the checkpoint tells its family");
}

}  // namespace

ChatTemplateChoice ChooseChatTemplate(const ChatTemplateHints& hints) {
  if (const char* name = ByTemplateText(hints.template_text)) return Choose(name, "its chat_template");
  ChatTemplateChoice choice = ChooseByName(hints);
  if (!hints.template_text.empty()) {
    choice.own_unrecognised = true;
    choice.reason += "; its own chat_template is of no known family";
  }
  return choice;
}

}  // namespace bellwether
