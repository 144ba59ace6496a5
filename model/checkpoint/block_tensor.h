#pragma once

#include <cstdint>
#include <string>

#include "model/checkpoint/storage_type.h"

namespace bellwether {

// A vector or matrix as the tables of GGUF and of GGML's files before it describe one.
struct BlockTensor {
  std::string name;
  StorageType storage = StorageType::kF32;
  int64_t rows = 1;
  int64_t cols = 0;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
};

}  // namespace bellwether
