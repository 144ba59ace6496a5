#include "worker/sampling/largest.h"

#include <algorithm>
#include <vector>

#include "worker/sampling/processors.h"

namespace bellwether {
namespace {

using kernels::LargestValue;

bool IsBetter(const LargestValue& a, const LargestValue& b) {
  return a.value != b.value ? a.value > b.value : a.column < b.column;
}

}  // namespace

int LargestNeeded(const SamplingInput& input, int64_t vocab) {
  const SamplingOptions& options = input.options;
  if (options.logprobs >= 0 || !HasNoProcessors(input)) return 0;
  if (options.temperature == 0.0) return 1;
  // One more shows whether others are equal to the last that counts.
  const bool few = options.top_k > 0 && options.top_k < kernels::kLargestMax && options.top_k < vocab;
  return few ? options.top_k + 1 : 0;
}

std::optional<SampledToken> SampleFromLargest(const SamplingInput& input,
                                              absl::Span<const LargestValue> values, int count,
                                              SamplingScratch& scratch) {
  std::vector<LargestValue> all;
  for (const LargestValue& value : values) {
    if (value.column == kernels::kNotFinite) return std::nullopt;  // whoever sees the row says what it is
    if (value.column >= 0) all.push_back(value);
  }
  if (all.empty()) return std::nullopt;
  if (input.options.temperature == 0.0)
    return SampledToken{.token = std::min_element(all.begin(), all.end(), IsBetter)->column};
  const auto k = static_cast<size_t>(input.options.top_k);
  if (all.size() < k) return std::nullopt;
  std::nth_element(all.begin(), all.begin() + (k - 1), all.end(), IsBetter);
  const float threshold = all[k - 1].value;
  // A chunk whose last value counts may have more that do.
  for (size_t last = count - 1; last < values.size(); last += count) {
    if (values[last].column >= 0 && values[last].value >= threshold) return std::nullopt;
  }
  scratch.candidates.clear();
  for (const LargestValue& value : all) {
    if (value.value >= threshold) scratch.candidates.push_back({value.column, value.value, 0.0f});
  }
  std::sort(scratch.candidates.begin(), scratch.candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  return SampledToken{.token = DrawFromCandidates(input, scratch)};
}

}  // namespace bellwether
