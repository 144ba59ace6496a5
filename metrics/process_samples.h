#pragma once

#include "metrics/metrics.h"

namespace bellwether {

// What the system says of this process: CPU time, memory, descriptors, and when it began. What it does not
// say is left out.
void AddProcessSamples(MetricSamples& samples);

}  // namespace bellwether
