#include "common/check.h"
#include "model/checkpoint/ggml.h"
#include "model/checkpoint/ggml_checkpoint.h"

// Any bytes: refused, or a table whose tensors lie within the file, sizes and a vocabulary that can be used.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto ggml = bellwether::GgmlFile::Parse(file);
  if (!ggml.ok()) return 0;
  for (const bellwether::BlockTensor& tensor : ggml->tensors) {
    BW_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  (void)bellwether::GgmlConfig(*ggml).ok();
  (void)bellwether::MakeTokenizerFromGguf(bellwether::GgmlVocabulary(*ggml)).ok();
  return 0;
}
