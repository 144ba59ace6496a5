#include "common/check.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/gguf_checkpoint.h"

// Any bytes: refused, or a table whose tensors lie within the file, and metadata that can be read.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto gguf = bellwether::GgufFile::Parse(file);
  if (!gguf.ok()) return 0;
  for (const bellwether::BlockTensor& tensor : gguf->tensors()) {
    BW_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  (void)bellwether::ReadGgufConfig(*gguf, file).ok();
  (void)bellwether::ReadGgufVocabulary(*gguf).ok();
  return 0;
}
