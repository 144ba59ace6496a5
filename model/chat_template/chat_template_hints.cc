#include "model/chat_template/chat_template_hints.h"

#include "model/model_names.h"
#include "model/option_names.h"

namespace bellwether {

ChatTemplateHints HintsOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  return {.architecture = std::string(Name(config.architecture)),
          .template_text = checkpoint.chat_template_text(),
          .model_name = checkpoint.model_name(),
          .file_names = ModelNames(checkpoint.path()),
          .vocab_size = config.vocab};
}

}  // namespace bellwether
