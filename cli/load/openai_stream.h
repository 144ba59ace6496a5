#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace bellwether {

// The body of a streamed answer in OpenAI's form, as it arrives: server-sent events ("data: JSON" lines,
// comments, empty lines), the last one "[DONE]". Tokens are counted from `usage`: an event may hold several
// or none.
class OpenAiStream {
 public:
  // A piece of the body, cut anywhere. `on_text` is called for each event that has text. InvalidArgument: not
  // such a stream, or a line of more than kLineBytesMax.
  absl::Status Add(std::string_view bytes, absl::FunctionRef<void()> on_text);

  // What has come so far.
  bool done() const { return done_; }                  // "[DONE]" was seen
  const std::string& error() const { return error_; }  // of an error that was sent as an event, its kind
  bool has_usage() const { return has_usage_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t generated_tokens() const { return generated_tokens_; }

  static constexpr size_t kLineBytesMax = size_t{16} << 20;

 private:
  absl::Status Event(std::string_view data, absl::FunctionRef<void()> on_text);

  std::string line_;  // not yet ended
  bool done_ = false, has_usage_ = false;
  std::string error_;
  int64_t prompt_tokens_ = 0, generated_tokens_ = 0;
};

// The kind of an error in OpenAI's form, {"error": {"code", "type", "message"}}: its code, else its type,
// else "".
std::string OpenAiErrorKind(std::string_view body);
// Its message, else "".
std::string OpenAiErrorMessage(std::string_view body);

}  // namespace bellwether
