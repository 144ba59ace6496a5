#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/check.h"
#include "coordinator/openai_request.h"
#include "coordinator/request_error.h"

// Any JSON as a request: refused, by the member's name or because it is no object, or with something to
// answer.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = bellwether::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!json.ok()) return 0;
  for (const auto& request :
       {bellwether::ParseChatRequest(*json), bellwether::ParseCompletionRequest(*json)}) {
    if (!request.ok()) {
      BW_CHECK(!json->is_object() || !bellwether::FieldOf(request.status()).empty());
    } else {
      BW_CHECK(request->chat ? !request->messages.empty() : !request->prompts.empty());
      BW_CHECK(request->prompts.size() <= bellwether::kPromptsMax);
    }
  }
  return 0;
}
