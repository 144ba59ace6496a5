#include "coordinator/step_report.h"

#include "absl/strings/str_format.h"

namespace bellwether {

void StepReport::Add(const StepTime& time) {
  ++steps_;
  sum_.busy += time.busy;
  sum_.planned += time.planned;
}

std::string StepReport::Due(absl::Duration now) {
  if (steps_ == 0) begin_ = now;
  if (now - begin_ < kInterval) return "";
  const double busy = absl::ToDoubleSeconds(sum_.busy), planned = absl::ToDoubleSeconds(sum_.planned);
  const auto steps = static_cast<double>(steps_);
  std::string line = absl::StrFormat(
      "the last %.0f s: %d steps, one every %.3g s while there was something to do; the plan says %.3g s at "
      "least: %.2f times that",
      absl::ToDoubleSeconds(now - begin_), steps_, busy / steps, planned / steps,
      planned > 0 ? busy / planned : 0);
  *this = {};
  begin_ = now;
  return line;
}

}  // namespace bellwether
