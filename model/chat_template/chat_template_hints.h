#pragma once

#include "model/chat_template/chat_template.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {

// What a checkpoint tells of its family of prompts: one answer for whoever serves it and whoever looks at it.
ChatTemplateHints HintsOf(const Checkpoint& checkpoint);

}  // namespace bellwether
