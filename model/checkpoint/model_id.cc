#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/sha256.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/tensor_samples.h"

namespace bellwether {
namespace {

// What is hashed of a tensor beside its samples.
std::string StorageText(const StoredTensor& tensor) {
  if (tensor.linear != nullptr) return Describe(*tensor.linear);
  if (tensor.made_up()) return absl::StrCat("random ", tensor.random.seed);
  return std::string(Name(tensor.storage));
}

}  // namespace

absl::StatusOr<std::string> Checkpoint::ModelId() const {
  Sha256 hash;
  hash.AddLine(CanonicalText(contents_->config));
  for (const ExpectedTensor& expected : ExpectedTensors(contents_->config)) {
    const StoredTensor& tensor = contents_->tensors.at(expected.key);
    hash.AddLine(absl::StrCat(Name(expected.key), " ", tensor.info.rows, " ", tensor.info.cols, " ",
                              StorageText(tensor), " ", std::string(Name(tensor.info.format.format))));
    AddSamples(tensor, hash);
  }
  // With a sample's page the system maps what its cache has around it: up to megabytes, of other tensors too.
  for (const auto& [key, tensor] : contents_->tensors) DropStored(tensor);
  return hash.HexDigest();
}

}  // namespace bellwether
