#include "cli/batch/batch_task.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr const char* kKinds[] = {"prompt", "text", "question", "instruction", "messages", "turns"};
constexpr const char* kIds[] = {"id", "question_id", "custom_id"};

absl::StatusOr<std::string> Text(const Json& value, const std::string& what) {
  if (!value.is_string()) return absl::InvalidArgumentError(absl::StrCat("\"", what, "\" is not a text"));
  return value.text();
}

absl::Status AddMessages(const Json& messages, BatchTask& task) {
  if (!messages.is_array() || messages.empty())
    return absl::InvalidArgumentError("\"messages\" is not a list of messages");
  for (const Json& message : messages) {
    BW_ASSIGN_OR_RETURN(std::string role, Text(message["role"], "role"));
    BW_ASSIGN_OR_RETURN(std::string content, Text(message["content"], "content"));
    task.history.push_back({std::move(role), std::move(content)});
  }
  if (task.history.back().role != "user")
    return absl::InvalidArgumentError(
        "the last of \"messages\" is not the user's: there is nothing to answer");
  task.turns.push_back(std::move(task.history.back().content));
  task.history.pop_back();
  return absl::OkStatus();
}

absl::Status AddTurns(const Json& turns, BatchTask& task) {
  if (!turns.is_array() || turns.empty())
    return absl::InvalidArgumentError("\"turns\" is not a list of texts");
  task.several = true;
  for (const Json& turn : turns) {
    BW_ASSIGN_OR_RETURN(std::string text, Text(turn, "turns"));
    task.turns.push_back(std::move(text));
  }
  return absl::OkStatus();
}

// Which of kKinds the line is.
absl::StatusOr<std::string> KindOf(const Json& line) {
  if (!line.is_object()) return absl::InvalidArgumentError("not a JSON object");
  std::vector<std::string> found;
  for (const char* kind : kKinds) {
    if (line.contains(kind)) found.push_back(kind);
  }
  if (found.size() == 1) return found.front();
  return absl::InvalidArgumentError(found.empty() ? absl::StrCat("has none of ", absl::StrJoin(kKinds, ", "))
                                                  : absl::StrCat("has ", absl::StrJoin(found, " and "),
                                                                 ": which of them is the question?"));
}

absl::Status AddQuestion(const Json& line, const std::string& kind, BatchTask& task) {
  if (kind == "messages") return AddMessages(line[kind], task);
  if (kind == "turns") return AddTurns(line[kind], task);
  BW_ASSIGN_OR_RETURN(std::string text, Text(line[kind], kind));
  if (kind == "prompt") {
    task.prompt = std::move(text);
    return absl::OkStatus();
  }
  if (const Json& input = line["input"]; kind == "instruction" && !input.is_null()) {
    BW_ASSIGN_OR_RETURN(const std::string more, Text(input, "input"));
    if (!more.empty()) absl::StrAppend(&text, "\n", more);
  }
  task.turns.push_back(std::move(text));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BatchTask> ParseBatchTask(std::string_view line) {
  BW_ASSIGN_OR_RETURN(const Json json, ParseJson(line));
  BW_ASSIGN_OR_RETURN(const std::string kind, KindOf(json));
  BatchTask task;
  if (const Json& system = json["system"]; kind != "prompt" && !system.is_null()) {
    BW_ASSIGN_OR_RETURN(std::string text, Text(system, "system"));
    task.history.push_back({"system", std::move(text)});
  }
  BW_RETURN_IF_ERROR(AddQuestion(json, kind, task));
  for (const char* id : kIds) {
    if (const Json& value = json[id]; value.is_string() || value.is_number())
      task.ids.emplace_back(id, value);
  }
  return task;
}

}  // namespace bellwether
