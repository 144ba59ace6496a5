#include "coordinator/known_weights.h"

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

constexpr size_t kKnownMax = 4 * kWeightHashesMax;

}  // namespace

std::string KnownWeights::Differs(const std::string& worker, const std::vector<WeightHash>& hashes) {
  for (const WeightHash& hash : hashes) {
    const auto at = known_.find(hash.what);
    if (at == known_.end()) {
      if (known_.size() < kKnownMax) known_[hash.what] = {hash.hash, worker};
    } else if (at->second.hash != hash.hash) {
      return absl::StrCat("worker ", worker, " has other values of ", hash.what, " than worker ",
                          at->second.worker, " had: give all the same files of ", model_name_,
                          " (and restart the coordinator if it began with the wrong ones)");
    }
  }
  return "";
}

}  // namespace bellwether
