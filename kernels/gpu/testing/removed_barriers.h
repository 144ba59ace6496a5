#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "gtest/gtest.h"
#include "kernels/gpu/emulated_block.h"
#include "kernels/gpu/emulated_memory.h"
#include "kernels/gpu/runtime.h"

// Every barrier, wait and fence of the real kernels is left out in turn, and some schedule must show it: by a
// fault, or by other bits. So a kernel has no barrier that it does not need, and the emulator sees each that
// it needs. A program that uses EmulatedGpu does this with every launch until all barriers are found: those
// of every kernel with BELLWETHER_ALL_LAYOUTS, as set by tools/check.sh, else each that kernels share once,
// and none of those that take too long.

namespace bellwether::gpu {

class RemovedBarriers : public AroundLaunches {
 public:
  static RemovedBarriers* Trials() {
    static auto* const trials = new RemovedBarriers;
    [[maybe_unused]] static auto* const at_the_end = ::testing::AddGlobalTestEnvironment(new AtTheEnd);
    return trials;
  }

  absl::Status Launch(Kernel kernel, uint64_t seed, const EmulatedMemory& memory,
                      absl::FunctionRef<absl::Status(uint64_t seed, BarrierTrial& trial)> run) override {
    if (!every_kernel_ && absl::StartsWith(kKernels[static_cast<int>(kernel)].name, "tile_")) {
      BarrierTrial unused;  // these take a tenth of a second a launch
      return run(seed, unused);
    }
    const Contents before = AllFound(kernel) ? Contents() : ContentsOf(memory);
    BarrierTrial plain;
    absl::Status status = run(seed, plain);
    if (!status.ok()) return status;
    for (const Where& place : plain.passed) sites_[{kernel, TextOf(place)}].place = place;
    if (before.empty()) return status;
    const Contents after = ContentsOf(memory);
    for (auto& [key, site] : sites_) {
      if (key.first != kernel || IsFound(key, site)) continue;
      for (int i = 0; i < kTriesOfLaunch && !site.found && site.tries < kTriesMax; ++i) {
        Restore(before);
        site.found = IsMissed(*site.place, after, seed + 7919 * ++site.tries, run);
      }
    }
    Restore(after);
    return status;
  }

 private:
  static constexpr int kTriesOfLaunch = 4;
  static constexpr int kTriesMax = 1000;
  static constexpr int kSecondsMax = 60;  // a kernel that goes on for ever

  // Barriers that no schedule of the emulator's misses, and why they stay.
  struct Redundant {
    std::string kernel;
    int barriers;
    const char* why;
  };
  static std::vector<Redundant> AllRedundant() {
    return {{"tensor_core_wgmma", 2,
             "its block is one warpgroup, and the emulator begins Wgmma when all of it has come, and ends it "
             "for all at once, which nobody promises of a card"}};
  }

  using Key = std::pair<Kernel, std::string>;  // and place
  struct Site {
    std::optional<Where> place;
    int tries = 0;
    bool found = false;
  };
  using Contents = std::vector<std::pair<char*, std::vector<char>>>;

  static std::string TextOf(const Where& where) {
    const std::string file = where.file_name();
    return absl::StrCat(file.substr(file.rfind('/') + 1), ":", where.line());
  }
  static Contents ContentsOf(const EmulatedMemory& memory) {
    Contents contents;
    for (const auto& [begin, end] : memory.Allocations()) {
      auto* const first = reinterpret_cast<char*>(begin);
      contents.emplace_back(first, std::vector<char>(first, first + (end - begin)));
    }
    return contents;
  }
  static void Restore(const Contents& contents) {
    for (const auto& [to, bytes] : contents) std::memcpy(to, bytes.data(), bytes.size());
  }
  static bool Holds(const Contents& contents) {
    for (const auto& [at, bytes] : contents) {
      if (std::memcmp(at, bytes.data(), bytes.size()) != 0) return false;
    }
    return true;
  }
  // By this kernel or, where there is no time for every kernel that one text makes, by another.
  bool IsFound(const Key& key, const Site& site) const {
    if (site.found || every_kernel_) return site.found;
    for (const auto& [other, found] : sites_) {
      if (found.found && other.second == key.second) return true;
    }
    return false;
  }
  bool AllFound(Kernel kernel) const {
    bool seen = false;
    for (const auto& [key, site] : sites_) {
      if (key.first != kernel) continue;
      if (!IsFound(key, site) && site.tries < kTriesMax) return false;
      seen = true;
    }
    return seen;
  }
  // In a process of its own: a kernel without a barrier may do anything.
  static bool IsMissed(const Where& place, const Contents& after, uint64_t seed,
                       absl::FunctionRef<absl::Status(uint64_t seed, BarrierTrial& trial)> run) {
    const pid_t child = fork();
    BW_CHECK(child >= 0);
    if (child == 0) {
      alarm(kSecondsMax);
      BarrierTrial trial;
      trial.skipped = place;
      _exit(run(seed, trial).ok() && Holds(after) ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  }

  struct AtTheEnd : public ::testing::Environment {
    void TearDown() override {
      if (GTEST_FLAG_GET(filter) != "*") return;               // a part of the program
      std::map<std::string, std::vector<std::string>> missed;  // of each kernel
      for (const auto& [key, site] : Trials()->sites_) {
        const std::string kernel = kKernels[static_cast<int>(key.first)].name;
        auto& places = missed[kernel];
        if (!Trials()->IsFound(key, site))
          places.push_back(absl::StrCat(key.second, " (", site.tries, " schedules)"));
      }
      for (const Redundant& redundant : AllRedundant()) {
        const auto found = missed.find(redundant.kernel);
        if (found == missed.end()) continue;  // another program's
        EXPECT_EQ(static_cast<int>(found->second.size()), redundant.barriers)
            << redundant.kernel << ": " << redundant.why;
        missed.erase(found);
      }
      for (const auto& [kernel, places] : missed) {
        EXPECT_TRUE(places.empty()) << "nothing shows that " << kernel << " lacks the barrier at "
                                    << absl::StrJoin(places, ", at ");
      }
    }
  };

  const bool every_kernel_ = std::getenv("BELLWETHER_ALL_LAYOUTS") != nullptr;
  std::map<Key, Site> sites_;
};

}  // namespace bellwether::gpu
