#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// Gives nullptr for variables that are not set.
using Environment = std::function<const char*(const std::string&)>;

// Where a model that people name lies: `model` itself if it is there or begins with "random:", else ORG/NAME
// or ORG/NAME@REVISION (a branch, tag or commit) in the cache of Hugging Face's hub, where its own programs
// have put it: the snapshot of REVISION, else of "main", else the newest one. Nothing is downloaded.
// NotFound: it is not there, or files of the snapshot are missing, all of which are named.
absl::StatusOr<std::string> ResolveModel(const std::string& model, const Environment& environment);
// The same with the process's own environment.
absl::StatusOr<std::string> ResolveModel(const std::string& model);

// HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub.
std::string HubCacheDirectory(const Environment& environment);

}  // namespace bellwether
