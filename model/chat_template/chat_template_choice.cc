#include <algorithm>
#include <string>
#include <string_view>

#include "common/check.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {
namespace {

bool Has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// The last two parts of a path ("BelleGroup/BELLE-7B-2M"), in lower case.
std::string NameOfPath(std::string path) {
  while (!path.empty() && path.back() == '/') path.pop_back();
  const size_t last = path.rfind('/');
  const size_t start = last == std::string::npos || last == 0 ? last : path.rfind('/', last - 1);
  return start == std::string::npos ? path : path.substr(start + 1);
}

std::string LowerCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : static_cast<char>(c);
  });
  return text;
}

// By marks that only one family's template has.
const char* ByTemplateText(std::string_view text) {
  if (Has(text, "<|im_start|>")) {
    if (Has(text, "named SmolLM, trained by Hugging Face")) return "smollm2";
    if (Has(text, "You are Qwen, created by Alibaba Cloud")) return "qwen2.5";
    return Has(text, "You are a helpful assistant") ? "qwen2" : "chatml";
  }
  if (Has(text, "<|start_header_id|>")) return Has(text, "Cutting Knowledge Date") ? "llama-3.1" : "llama-3";
  if (Has(text, "[INST]")) return "llama-2";
  if (Has(text, "### Instruction:")) return "alpaca";
  return nullptr;
}

const char* BelleByName(std::string_view name, const ChatTemplateHints& hints) {
  constexpr int64_t kExtendedVocabulary = 79458;
  if (Has(name, "open-datasets") || Has(name, "open_datasets")) return "belle-open-datasets";
  if (Has(name, "llama2") || Has(name, "llama-2")) return "belle-llama2-13b";
  if (Has(name, "-ext") || hints.vocab_size == kExtendedVocabulary) {
    return Has(name, "13b") ? "belle-llama-ext-13b" : "belle-llama-ext-7b";
  }
  if (Has(name, "llama") || hints.architecture == "llama") return "belle-llama";
  return "belle-7b";
}

const char* ByName(std::string_view name, const ChatTemplateHints& hints) {
  if (Has(name, "belle")) return BelleByName(name, hints);
  if (Has(name, "billa")) return Has(name, "llm") ? "none" : "billa";
  if (Has(name, "alpaca")) return "alpaca";
  if (Has(name, "smollm2") && Has(name, "instruct")) return "smollm2";
  if (Has(name, "qwen2.5") && Has(name, "instruct")) return "qwen2.5";
  if (Has(name, "qwen2") && Has(name, "instruct")) return "qwen2";
  if (Has(name, "llama-3.") && Has(name, "instruct")) return "llama-3.1";
  if ((Has(name, "llama-3") || Has(name, "llama3")) && Has(name, "instruct")) return "llama-3";
  if ((Has(name, "llama-2") || Has(name, "llama2")) && Has(name, "chat")) return "llama-2";
  return nullptr;
}

}  // namespace

const ChatTemplate* ChooseChatTemplate(const ChatTemplateHints& hints) {
  const char* name = ByTemplateText(hints.template_text);
  if (name == nullptr) name = ByName(LowerCase(NameOfPath(hints.path)), hints);
  if (name == nullptr) name = ByName(LowerCase(hints.model_name), hints);
  const ChatTemplate* chosen = FindChatTemplate(name == nullptr ? "none" : name);
  BW_CHECK(chosen != nullptr);
  return chosen;
}

}  // namespace bellwether
