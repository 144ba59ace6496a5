#pragma once

#include <string>
#include <vector>

#include "model/chat_template/chat_template.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {

// What a checkpoint at `path` is called, the likeliest name first: its directory's or file's own name, that
// of the model whose snapshot of the Hugging Face hub it lies in (models--ORG--NAME/snapshots/HASH), and the
// same of where symbolic links lead. Directories above it are nobody's name.
std::vector<std::string> ModelNames(const std::string& path);

// What a checkpoint tells of its family of prompts: one answer for whoever serves it and whoever looks at it.
ChatTemplateHints HintsOf(const Checkpoint& checkpoint);

}  // namespace bellwether
