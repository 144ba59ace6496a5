#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/session.h"

namespace bellwether {

struct PerplexityOptions {
  SessionOptions session;
  std::string file;  // a text, or lines of {"text": …}: a document each
  int window = 0;    // tokens scored in one go; 0: the context that is served
  int stride = 0;    // from one window to the next; 0: 512, less where windows are shorter
  bool json = false;
};

// How well the model foretells a text: exp of the mean of -log p over the scored tokens, per document and
// over all. Long texts go by sliding windows (perplexity_windows.h).
absl::Status RunPerplexity(const PerplexityOptions& options);

}  // namespace bellwether
