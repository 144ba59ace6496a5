#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace bellwether {

using ByteSink = std::function<absl::Status(absl::Span<const std::byte>)>;

// A tensor to write. Its type is one of safetensors' words.
struct OutputTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  // Hands over all of them in order, in pieces. Called once.
  std::function<absl::Status(const ByteSink&)> write;
};

struct SafetensorsOptions {
  std::string directory;
  std::string note;  // in the files' metadata
  int64_t shard_bytes = int64_t{5} << 30;
  // Called with the bytes written of all; false ends the work with Cancelled.
  std::function<bool(int64_t done, int64_t all)> progress;
};

// model.safetensors, or shards and their index where one file would be larger than `shard_bytes`. No file is
// overwritten; each appears once it is whole.
absl::Status WriteSafetensors(const std::vector<OutputTensor>& tensors, const SafetensorsOptions& options);

// A file of text that is not there yet.
absl::Status WriteNewText(const std::string& path, const std::string& text);

}  // namespace bellwether
