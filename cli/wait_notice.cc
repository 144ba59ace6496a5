#include "cli/wait_notice.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {
constexpr absl::Duration kFirstPause = absl::Seconds(10);
}  // namespace

WaitNotice::WaitNotice(std::string what)
    : thread_([this, what = std::move(what)] {
        absl::Duration waited;
        for (absl::Duration pause = kFirstPause; !ended_.WaitFor(pause); pause *= 2) {
          waited += pause;
          std::fprintf(stderr, "%s (%s)\n", what.c_str(), absl::FormatDuration(waited).c_str());
        }
      }) {}

void WaitNotice::End() {
  ended_.Cancel();
  if (thread_.joinable()) thread_.join();
}

}  // namespace bellwether
