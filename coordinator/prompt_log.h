#pragma once

#include <memory>

#include "common/log.h"
#include "coordinator/engine.h"
#include "coordinator/request_observer.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// For --log-prompts: a line with the request's prompt when it is taken, and one with each choice's answer
// when it ends. The first 64 KiB of each; token ids where there is no tokenizer. What is returned passes all
// that it hears on to `observer`. `tokenizer` may be null and outlives it.
std::shared_ptr<RequestObserver> LogPrompts(const EngineRequest& request, const Tokenizer* tokenizer,
                                            LogFields fields, std::shared_ptr<RequestObserver> observer);

}  // namespace bellwether
