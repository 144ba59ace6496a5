#pragma once

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "common/aligned_buffer.h"
#include "common/check.h"

namespace bellwether::testing_image {

// An image of `bytes` bytes that tells which one it is, on a page's border.
inline AlignedBuffer Make(int64_t bytes, int seed) {
  absl::StatusOr<AlignedBuffer> image = AlignedBuffer::Allocate(bytes);
  BW_CHECK(image.ok());
  for (int64_t i = 0; i < bytes; ++i)
    image->data()[i] = static_cast<std::byte>((i * 7 + i / 4096 + seed) & 255);
  return *std::move(image);
}
inline absl::Span<const std::byte> BytesOf(const AlignedBuffer& image) {
  return {image.data(), static_cast<size_t>(image.size())};
}

}  // namespace bellwether::testing_image
