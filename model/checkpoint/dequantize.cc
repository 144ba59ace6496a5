#include "model/checkpoint/dequantize.h"

namespace bellwether {
namespace {

WeightFormat FormatOf(DType type) {
  return type == DType::kF32    ? WeightFormat::kF32
         : type == DType::kBF16 ? WeightFormat::kBF16
                                : WeightFormat::kF16;
}

// fp32 holds all values as they are read.
void SetFormat(WeightFormat format, StoredTensor& tensor) {
  tensor.info.format = {.format = format};
  tensor.rounded = format != WeightFormat::kF32;
}

}  // namespace

void RoundFloatTensors(DType type, CheckpointContents& contents) {
  const WeightFormat format = FormatOf(type);
  for (auto& [key, tensor] : contents.tensors) {
    const WeightFormat stored = tensor.info.format.format;
    if (!IsQuantized(stored) && stored != format) SetFormat(format, tensor);
  }
}

void Dequantize(DType type, CheckpointContents& contents) {
  for (auto& [key, tensor] : contents.tensors) {
    if (tensor.linear != nullptr || IsQuantized(tensor.info.format.format)) SetFormat(FormatOf(type), tensor);
  }
}

}  // namespace bellwether
