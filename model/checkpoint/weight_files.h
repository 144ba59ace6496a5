#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bellwether {

// Which files of a Hugging Face directory hold the weights.
struct WeightFiles {
  std::vector<std::string> chosen;       // names within the directory, sorted; never empty
  std::vector<std::string> passed_over;  // other files of weights, for the log
  // What the index says that each file holds; empty without an index.
  std::map<std::string, std::vector<std::string>> tensors;
};

// As transformers chooses: model.safetensors, else what model.safetensors.index.json names, else the one
// complete set of numbered shards (NAME-00001-of-00002.safetensors; of several the one called "model"); then
// the same of torch's pytorch_model.bin; then all .safetensors files, or the only one of torch. Hidden files,
// such as macOS leaves beside every file of an archive, are none. NotFound: nothing, or shards are missing,
// by name. Unimplemented: other containers, by name.
absl::StatusOr<WeightFiles> FindWeightFiles(const std::string& dir);

// What `dir` holds instead of readable weights and what to do about it; NotFound if nothing is recognised.
absl::Status RefuseOtherContainers(const std::string& dir);

}  // namespace bellwether
