#include "cli/load/openai_stream.h"

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/status.h"

namespace bellwether {
namespace {

std::string KindOf(const Json& error) {
  for (const char* name : {"code", "type"}) {
    if (error[name].is_string() && !error[name].text().empty()) return error[name].text();
  }
  return error.is_null() ? "" : "error";
}

// Whether an event brings text: of a completion, of a chat, or the reasoning that some servers put beside it.
bool HasText(const Json& event) {
  for (const Json& choice : event["choices"].elements()) {
    const Json& delta = choice["delta"];
    for (const Json* text : {&choice["text"], &delta["content"], &delta["reasoning_content"]}) {
      if (text->is_string() && !text->text().empty()) return true;
    }
  }
  return false;
}

}  // namespace

absl::Status OpenAiStream::Add(std::string_view bytes, absl::FunctionRef<void()> on_text) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (line_.size() > kLineBytesMax) return absl::InvalidArgumentError("an event is too long");
    if (end == std::string_view::npos) return absl::OkStatus();
    bytes.remove_prefix(end + 1);
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("data:")) {
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      BW_RETURN_IF_ERROR(Event(line, on_text));
    }
    line_.clear();
  }
  return absl::OkStatus();
}

absl::Status OpenAiStream::Event(std::string_view data, absl::FunctionRef<void()> on_text) {
  if (data == "[DONE]") {
    done_ = true;
    return absl::OkStatus();
  }
  const absl::StatusOr<Json> event = ParseJson(data);
  if (!event.ok()) return Annotate(event.status(), "an event of the stream");
  if (const Json* error = event->find("error"); error != nullptr && !error->is_null())
    error_ = KindOf(*error);
  const Json& usage = (*event)["usage"];
  if (usage.is_object()) {
    has_usage_ = true;
    prompt_tokens_ = usage["prompt_tokens"].get<int64_t>();
    generated_tokens_ = usage["completion_tokens"].get<int64_t>();
  }
  if (HasText(*event)) on_text();
  return absl::OkStatus();
}

std::string OpenAiErrorKind(std::string_view body) {
  const absl::StatusOr<Json> json = ParseJson(body);
  return json.ok() ? KindOf((*json)["error"]) : "";
}

std::string OpenAiErrorMessage(std::string_view body) {
  const absl::StatusOr<Json> json = ParseJson(body);
  return json.ok() ? (*json)["error"]["message"].text() : "";
}

}  // namespace bellwether
