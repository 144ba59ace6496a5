#include "worker/decoder/batch.h"

#include "common/exact_math.h"

namespace bellwether {

BatchBuilder::BatchBuilder(const ModelConfig& config) {
  if (!config.alibi) inverse_frequencies_ = RopeInverseFrequencies(config);
}

// The angle is rounded to fp32 before its cosine is taken, as Hugging Face does.
void BatchBuilder::AddAngles(int32_t position) {
  for (float inverse_frequency : inverse_frequencies_) {
    const float angle = static_cast<float>(position) * inverse_frequency;
    batch_.cosines.push_back(static_cast<float>(Cos(angle)));
    batch_.sines.push_back(static_cast<float>(Sin(angle)));
  }
}

const Batch& BatchBuilder::Build(const Step& step, const SequenceTable& sequences) {
  batch_.runs.clear();
  batch_.tokens.clear();
  batch_.positions.clear();
  batch_.cosines.clear();
  batch_.sines.clear();
  for (const StepEntry& entry : step.entries) {
    const SequenceState& sequence = sequences.at(entry.sequence);
    batch_.runs.push_back({.sequence = &sequence,
                           .row = static_cast<int32_t>(batch_.rows()),
                           .count = entry.count,
                           .position = entry.position});
    for (int32_t position = entry.position; position < entry.position + entry.count; ++position) {
      batch_.tokens.push_back(sequence.tokens()[position]);
      batch_.positions.push_back(position);
      AddAngles(position);
    }
  }
  return batch_;
}

}  // namespace bellwether
