#include "common/check.h"
#include "model/checkpoint/torch_archive.h"
#include "model/checkpoint/torch_legacy.h"
#include "model/checkpoint/torch_pickle.h"

// Any bytes as a file of torch, and as the pickle within one: refused, or tensors that lie within the file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  (void)bellwether::ReadTorchPickle(file).ok();
  const auto tensors = bellwether::IsTorchLegacy(file) ? bellwether::ParseTorchLegacy(file)
                                                       : bellwether::ParseTorchArchive(file);
  if (!tensors.ok()) return 0;
  for (const bellwether::FileTensor& tensor : *tensors) {
    BW_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
    BW_CHECK(tensor.strides.empty() || tensor.strides.size() == tensor.shape.size());
  }
  return 0;
}
