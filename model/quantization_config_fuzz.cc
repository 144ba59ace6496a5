#include <string_view>

#include "common/check.h"
#include "model/quantization_config.h"

// Any JSON as what the tools of GPTQ and AWQ say about their matrices: refused, or numbers that can be.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = bellwether::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!json.ok()) return 0;
  const auto config = bellwether::ParseQuantizationConfig(*json);
  if (!config.ok()) return 0;
  BW_CHECK(config->bits >= 2 && config->bits <= 8);
  BW_CHECK(config->group == -1 || config->group > 0);
  return 0;
}
