#include "worker/stream_report.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/format_bytes.h"

namespace bellwether {
namespace {

absl::Duration Spent(const StepMeter::Reading& times, StepPart part) {
  return times.parts[static_cast<size_t>(part)];
}

// In steps, whatever they did.
absl::Duration InSteps(const StepMeter::Reading& times) {
  return Spent(times, StepPart::kCompute) + Spent(times, StepPart::kCollectiveWait) +
         Spent(times, StepPart::kLinkWait) + Spent(times, StepPart::kWeightsWait);
}

// Reading goes on for a moment when steps are over.
double PercentOf(absl::Duration part, absl::Duration whole) {
  return whole <= absl::ZeroDuration() ? 0 : std::min(100.0, 100 * absl::FDivDuration(part, whole));
}

}  // namespace

void StreamReport::Begin(absl::Duration now, const Counts& counts) {
  begin_ = now;
  last_ = counts;
}

std::string StreamReport::Line(absl::Duration now, const Counts& counts) {
  const absl::Duration steps = InSteps(counts.times) - InSteps(last_.times);
  const auto bytes = static_cast<double>(counts.streamed_bytes - last_.streamed_bytes);
  const absl::Duration waited =
      Spent(counts.times, StepPart::kWeightsWait) - Spent(last_.times, StepPart::kWeightsWait);
  std::string line = absl::StrFormat(
      "the last %.0f s: %d steps of %.1f s together, %s streamed; a read was under way for %.1f %% of that "
      "time, layers were waited for in %.1f %%; buffers were %.0f %% full",
      absl::ToDoubleSeconds(now - begin_), counts.times.steps - last_.times.steps,
      absl::ToDoubleSeconds(steps), FormatBytes(bytes),
      PercentOf(counts.stream.reading - last_.stream.reading, steps), PercentOf(waited, steps),
      PercentOf(counts.stream.filled - last_.stream.filled, now - begin_));
  Begin(now, counts);
  return line;
}

}  // namespace bellwether
