#pragma once

#include <string>

namespace bellwether {

// docs/metrics.md, as the table says it.
std::string MetricsMarkdown();

}  // namespace bellwether
