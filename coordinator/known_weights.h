#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/weight_hash.h"

namespace bellwether {

// The weights that workers have loaded since the coordinator began, as hashes of their pieces: all must be
// the same.
class KnownWeights {
 public:
  // `model_name`: for messages.
  explicit KnownWeights(std::string model_name) : model_name_(std::move(model_name)) {}

  // Why the weights of `worker` are not those of the workers before; empty if they are. What is new is
  // remembered.
  std::string Differs(const std::string& worker, const std::vector<WeightHash>& hashes);

 private:
  struct Known {
    uint64_t hash = 0;
    std::string worker;  // who said so first
  };
  const std::string model_name_;
  std::map<std::string, Known> known_;  // by piece
};

}  // namespace bellwether
