#include "model/chat_template/chat_template_hints.h"

namespace bellwether {

ChatTemplateHints HintsOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  return {.architecture = config.architecture == Architecture::kBloom ? "bloom" : "llama",
          .template_text = checkpoint.chat_template_text(),
          .path = checkpoint.path(),
          .vocab_size = config.vocab};
}

}  // namespace bellwether
