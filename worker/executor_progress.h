#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "worker/step_meter.h"
#include "worker/weights/stream_meter.h"

namespace bellwether {

// Instead of a flat index: some peer, and nobody can tell which.
inline constexpr int32_t kSomePeer = -2;

// How far a worker has come in its epoch, and where its time went; read by the heartbeat thread at any time.
struct ExecutorProgress {
  ExecutorProgress() = default;
  explicit ExecutorProgress(const Clock* clock)
      : meter(clock), stream(std::make_shared<StreamMeter>(clock)) {}

  std::atomic<uint64_t> counter{0};  // grows whenever it gets on
  std::atomic<uint64_t> step{0};
  std::atomic<int32_t> layer{-1};
  // Flat index of the worker it waits for, -1 if none, or kSomePeer.
  std::atomic<int32_t> waiting_for{-1};
  // Of the first worker whose link failed, likewise.
  std::atomic<int32_t> failed_peer{-1};
  // What is told below is of this epoch: whoever begins one sets it once the rest is reset.
  std::atomic<uint64_t> epoch{0};
  std::atomic<int64_t> loaded_bytes{0};
  std::atomic<int64_t> total_bytes{0};
  std::atomic<int64_t> streamed_bytes{0};  // of weights, brought by steps since the worker began
  StepMeter meter;
  // Threads that read ahead may outlast their layout.
  const std::shared_ptr<StreamMeter> stream = std::make_shared<StreamMeter>();
};

}  // namespace bellwether
