#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace bellwether {

struct CacheOptions {
  std::string action;     // "list" or "prune"
  std::string directory;  // empty: the default one
  std::string max_bytes;  // prune: what may stay, "20GB"
  bool json = false;
};
// Prints the packed layers that workers keep on a drive, or takes away those used longest ago.
absl::Status RunCache(const CacheOptions& options);

}  // namespace bellwether
