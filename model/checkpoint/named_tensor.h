#pragma once

#include <memory>
#include <string>

#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/file_tensor.h"
#include "model/checkpoint/hugging_face_names.h"

namespace bellwether {

// One tensor of one file, with what its name says.
struct NamedTensor {
  HuggingFaceName name;
  FileTensor entry;
  std::shared_ptr<const FileMapping> file;
  std::string source;  // "dir/model.safetensors: tensor 'lm_head.weight'"
};

}  // namespace bellwether
