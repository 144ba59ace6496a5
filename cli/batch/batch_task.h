#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/json.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {

// What one line of a batch's input asks for: a text to continue, or a conversation with one answer to each
// turn.
struct BatchTask {
  std::optional<std::string> prompt;  // continued as it is
  std::vector<ChatMessage> history;   // what was said before the first turn
  std::vector<std::string> turns;     // of the user; an answer becomes history for the next
  bool several = false;               // the line has a list of turns: so has its answer
  Json::Object ids;                   // "id", "question_id" ..., as the line has them
};

// Reads a line:
//   {"prompt": TEXT}                                    continued without a chat template
//   {"text": TEXT} or {"question": TEXT}                one question, as BELLE's and BiLLa's scripts have it
//   {"instruction": TEXT, "input": TEXT}                the second after a line break, where there is one
//   {"messages": [{"role": …, "content": …}, …]}        answers the last
//   {"turns": [TEXT, …]}                                several questions, one after another
// All but the first may have "system" beside. Other members are passed over. InvalidArgument: not such an
// object.
absl::StatusOr<BatchTask> ParseBatchTask(std::string_view line);

}  // namespace bellwether
