#include "coordinator/model_mismatch.h"

#include "absl/strings/str_cat.h"

namespace bellwether {

std::string ModelMismatch(const JoiningWorker& worker, const ClusterViewOptions& ours) {
  const std::string difference = DifferenceOf(worker.reading, ours.reading, "this coordinator");
  if (!difference.empty()) {
    return absl::StrCat("the worker reads its model ", difference,
                        ": what they read differs, so give both the same");
  }
  return absl::StrCat("the worker has the model with id ", worker.model_id, ", this coordinator serves ",
                      ours.model_name, " with id ", ours.model_id, ": give both the same --model");
}

}  // namespace bellwether
