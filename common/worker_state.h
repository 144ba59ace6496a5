#pragma once

#include <cstdint>
#include <string_view>

namespace bellwether {

// How far a worker is in its epoch: it has none, loads its part, makes its links, waits for a step, computes
// one.
enum class WorkerState : uint8_t { kJoined, kLoading, kLinking, kReady, kStep };

constexpr std::string_view Name(WorkerState state) {  // as in "no progress while linking"
  switch (state) {
    case WorkerState::kJoined:
      return "joined";
    case WorkerState::kLoading:
      return "loading";
    case WorkerState::kLinking:
      return "linking";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kStep:
      return "computing a step";
  }
  return "unknown";
}

}  // namespace bellwether
