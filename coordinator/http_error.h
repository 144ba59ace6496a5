#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "http/message.h"

namespace bellwether {

// Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}.

std::string ErrorJson(const absl::Status& status);
// With the HTTP status that belongs to it, and Retry-After where trying again may help.
HttpResponse ErrorResponse(const absl::Status& status);
// Of the HTTP server's own refusals.
HttpResponse RefusalResponse(int status, std::string_view message);

HttpResponse JsonResponse(std::string json);

}  // namespace bellwether
