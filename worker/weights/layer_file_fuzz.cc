#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "worker/weights/layer_file.h"

// Any bytes as the beginning of a layer file, and as the description in it, which is refused or says the same
// when it is written again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)bellwether::LayerHeaderBytes(bytes);
  (void)bellwether::ParseLayerHeader(bytes);
  if (const auto info = bellwether::ParseLayerInfo(bytes); info.ok()) {
    const auto again = bellwether::ParseLayerHeader(bellwether::WriteLayerHeader(*info));
    BW_CHECK(again.ok());
    BW_CHECK(again->key == info->key && again->checksums == info->checksums);
    BW_CHECK_EQ(again->image_bytes, info->image_bytes);
    BW_CHECK_EQ(again->hashes.size(), info->hashes.size());
  }
  return 0;
}
