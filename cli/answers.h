#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/session.h"
#include "common/generation_options.h"

namespace bellwether {

struct GenerateOptions {
  SessionOptions session;
  PromptInput prompt;
  GenerationOptions generation;
  bool json = false;
};
// Prints the answer as it comes, or one JSON object when it is whole.
absl::Status RunGenerate(const GenerateOptions& options);

struct ScoreOptions {
  SessionOptions session;
  PromptInput prompt;
  bool json = false;
};
absl::Status RunScore(const ScoreOptions& options);

struct ChatOptions {
  SessionOptions session;
  GenerationOptions generation;
  std::string system;    // empty: the template's own
  std::string question;  // ask this and end; empty: a conversation on the terminal
  bool json = false;
};
absl::Status RunChat(const ChatOptions& options);

}  // namespace bellwether
