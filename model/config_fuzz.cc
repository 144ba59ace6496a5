#include <string>

#include "common/check.h"
#include "model/config.h"

// Any text: refused, or a config within its limits.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<bellwether::ModelConfig> config = bellwether::ParseHuggingFaceConfig(text);
  if (!config.ok()) return 0;
  BW_CHECK(bellwether::Validate(*config).ok());
  BW_CHECK(!bellwether::CanonicalText(*config).empty());
  if (!config->alibi) bellwether::RopeInverseFrequencies(*config);
  return 0;
}
