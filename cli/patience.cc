#include "cli/patience.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

constexpr int kTimesMax = 5;        // that a state may come back
constexpr size_t kStatesMax = 256;  // different ones that are remembered

// "worker 1 of 4, epoch 2" and "worker 3 of 4, epoch 9" are the same state.
std::string WithoutNumbers(std::string state) {
  state.erase(std::remove_if(state.begin(), state.end(), [](char c) { return absl::ascii_isdigit(c); }),
              state.end());
  return state;
}

}  // namespace

absl::Status Patience::Hear(absl::Duration now, const std::string& state, uint64_t progress) {
  const bool first = !heard_;
  const bool entered = first || WithoutNumbers(state) != WithoutNumbers(state_);
  if (first || progress != progress_ || state != state_) last_progress_ = now;
  heard_ = true;
  progress_ = progress;
  state_ = state;
  if (entered) {
    if (absl::Status circles = CheckCircles(state); !circles.ok()) return circles;
  }
  if (now - last_progress_ < limit_) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("no progress for ",
                                                  absl::FormatDuration(now - last_progress_), ": ", state,
                                                  "\n--give-up-seconds says how long to wait for some"));
}

absl::Status Patience::CheckCircles(const std::string& state) {
  const std::string key = WithoutNumbers(state);
  if (times_.size() >= kStatesMax && !times_.contains(key)) times_.clear();
  const int times = ++times_[key];
  if (times <= kTimesMax) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("given up, as this came ", times, " times: ", state));
}

bool Patience::IsNews() {
  if (!heard_ || told_ == state_) return false;
  told_ = state_;
  return true;
}

}  // namespace bellwether
