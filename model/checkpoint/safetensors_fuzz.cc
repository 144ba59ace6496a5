#include "common/check.h"
#include "model/checkpoint/safetensors.h"

// Any bytes: refused, or a table whose tensors lie within the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto entries = bellwether::ParseSafetensors({reinterpret_cast<const std::byte*>(data), size});
  if (!entries.ok()) return 0;
  for (const bellwether::FileTensor& entry : *entries) {
    BW_CHECK(entry.offset <= size && entry.bytes <= size - entry.offset);
  }
  return 0;
}
