#include "worker/decoder/batch.h"

namespace bellwether {

const Batch& BatchBuilder::Build(const Step& step, const SequenceTable& sequences) {
  batch_.runs.clear();
  batch_.tokens.clear();
  batch_.positions.clear();
  for (const StepEntry& entry : step.entries) {
    const SequenceState& sequence = sequences.at(entry.sequence);
    batch_.runs.push_back({.sequence = &sequence,
                           .row = static_cast<int32_t>(batch_.rows()),
                           .count = entry.count,
                           .position = entry.position});
    for (int32_t position = entry.position; position < entry.position + entry.count; ++position) {
      batch_.tokens.push_back(sequence.tokens()[position]);
      batch_.positions.push_back(position);
    }
  }
  return batch_;
}

}  // namespace bellwether
