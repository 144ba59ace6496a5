#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/block_tensor.h"

namespace bellwether {

// Limits on what a file may claim.
inline constexpr uint32_t kGgmlPieceBytesMax = 4096;
inline constexpr uint32_t kGgmlNameBytesMax = 256;
inline constexpr size_t kGgmlTensorsMax = size_t{1} << 17;

// A file of LLaMA by llama.cpp before August 2023, when GGUF came: its header, vocabulary and tensor table,
// every length checked against the file. docs/formats.md describes the bytes.
struct GgmlFile {
  std::string container;  // "ggml", "ggmf v1", "ggjt v1", "ggjt v2" or "ggjt v3"
  int32_t vocab = 0;
  int32_t hidden = 0;
  int32_t ffn_multiple = 0;
  int32_t heads = 0;
  int32_t layers = 0;
  int32_t rotary = 0;               // columns of a head that RoPE turns
  std::vector<std::string> pieces;  // bytes, with blanks where sentencepiece has U+2581
  std::vector<float> scores;        // none in "ggml"
  std::vector<BlockTensor> tensors;

  // InvalidArgument says what is damaged, Unimplemented what is not supported (a tensor type, the oldest row
  // layout).
  static absl::StatusOr<GgmlFile> Parse(absl::Span<const std::byte> file);
};

// Whether a file begins as one of them does.
bool IsGgml(absl::Span<const std::byte> file);

}  // namespace bellwether
