#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "model/assignment.h"
#include "model/config.h"
#include "worker/weights/loaded_shard.h"

// What tests of shards share.

namespace bellwether {

inline Assignment MakeAssignment(const ModelConfig& config, int stages, int ranks, Quantize quantize) {
  Assignment assignment{.epoch = Epoch{1}, .model_id = "m", .layout = *EvenLayout(config, stages, ranks)};
  assignment.numeric.quantize = quantize;
  return assignment;
}

inline std::map<std::string, uint64_t> HashesOf(const LoadedShard& shard) {
  std::map<std::string, uint64_t> hashes;
  for (const WeightHash& hash : shard.hashes) {
    EXPECT_TRUE(hashes.emplace(hash.what, hash.hash).second) << hash.what;
    EXPECT_LE(hash.what.size(), static_cast<size_t>(kWeightHashNameBytesMax));
  }
  return hashes;
}

}  // namespace bellwether
