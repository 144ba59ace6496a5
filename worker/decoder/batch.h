#pragma once

#include <cstdint>
#include <vector>

#include "common/step.h"
#include "worker/sequence_table.h"

namespace bellwether {

// The rows that one step computes: the positions of its entries, one after the other.
struct Batch {
  // The neighbouring rows of one entry.
  struct Run {
    const SequenceState* sequence = nullptr;
    int32_t row = 0;  // first row
    int32_t count = 0;
    int32_t position = 0;  // of the first row
  };
  std::vector<Run> runs;
  std::vector<TokenId> tokens;     // [rows]
  std::vector<int32_t> positions;  // [rows]

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

// Fills a batch from a step that `sequences` has taken in.
class BatchBuilder {
 public:
  // The batch is the builder's, rebuilt by the next call.
  const Batch& Build(const Step& step, const SequenceTable& sequences);

 private:
  Batch batch_;
};

}  // namespace bellwether
