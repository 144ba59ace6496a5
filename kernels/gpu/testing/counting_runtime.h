#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/forwarding_runtime.h"

// For tests of what is asked of a GPU: runtimes that stand before another one.

namespace bellwether::gpu {

// Counts memory, copies and graphs. Fails the test where memory or a graph goes that work may still be using.
class CountingRuntime : public ForwardingRuntime {
 public:
  enum class Graphs : uint8_t {
    kMade,
    kUnused,    // the runtime has no use for them
    kNoMemory,  // there is none left for them
  };

  explicit CountingRuntime(std::unique_ptr<Runtime> runtime, Graphs graphs = Graphs::kMade)
      : ForwardingRuntime(std::move(runtime)), graphs_(graphs) {}

  int64_t allocations = 0;  // asked for, of either memory
  int64_t copies_to_device = 0;
  int64_t graphs_asked = 0, graphs_made = 0, graphs_live = 0, graph_runs = 0;
  int64_t lists_run = 0, longest_list_run = 0;  // not as graphs; in launches
  std::set<std::string> kernels_run;            // in those lists
  int64_t pinned_bytes() const {
    MutexLock lock(&mutex_);
    return pinned_bytes_;
  }
  int64_t most_pinned_bytes() const {
    MutexLock lock(&mutex_);
    return most_pinned_bytes_;
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    ++allocations;
    return ForwardingRuntime::Allocate(bytes);
  }
  void Free(void* memory) override {
    EXPECT_FALSE(busy_) << "memory goes that work may still be using";
    ForwardingRuntime::Free(memory);
  }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override {
    ++allocations;
    absl::StatusOr<void*> memory = ForwardingRuntime::AllocateHost(bytes);
    if (!memory.ok()) return memory;
    MutexLock lock(&mutex_);
    pinned_[*memory] = bytes;
    pinned_bytes_ += bytes;
    most_pinned_bytes_ = std::max(most_pinned_bytes_, pinned_bytes_);
    return memory;
  }
  void FreeHost(void* memory) override {
    {
      MutexLock lock(&mutex_);
      const auto at = pinned_.find(memory);
      if (at != pinned_.end()) {
        pinned_bytes_ -= at->second;
        pinned_.erase(at);
      }
    }
    ForwardingRuntime::FreeHost(memory);
  }
  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    busy_ = true;
    ++copies_to_device;
    ForwardingRuntime::CopyToDevice(to, from, bytes);
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    busy_ = true;
    ForwardingRuntime::CopyToHost(to, from, bytes);
  }
  void Run(const LaunchList& list) override {
    for (const auto& launch : list.launches())
      kernels_run.insert(kKernels[static_cast<int>(launch.kernel)].name);
    busy_ = true;
    ++lists_run;
    longest_list_run = std::max(longest_list_run, static_cast<int64_t>(list.launches().size()));
    ForwardingRuntime::Run(list);
  }
  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override {
    ++graphs_asked;
    if (graphs_ == Graphs::kUnused) return nullptr;
    if (graphs_ == Graphs::kNoMemory) return absl::ResourceExhaustedError("no memory for a graph");
    absl::StatusOr<std::unique_ptr<Graph>> graph = ForwardingRuntime::MakeGraph(list);
    if (!graph.ok()) return graph;
    ++graphs_made;
    return std::make_unique<CountedGraph>(this, *std::move(graph));
  }
  void Run(Graph& graph) override {
    busy_ = true;
    ++graph_runs;
    ForwardingRuntime::Run(*static_cast<CountedGraph&>(graph).graph);
  }
  absl::Status Synchronize() override {
    busy_ = false;
    return ForwardingRuntime::Synchronize();
  }
  absl::StatusOr<bool> Done() override {
    const absl::StatusOr<bool> done = ForwardingRuntime::Done();
    busy_ = busy_ && !(done.ok() && *done);
    return done;
  }

 private:
  struct CountedGraph : Graph {
    CountedGraph(CountingRuntime* its_runtime, std::unique_ptr<Graph> counted)
        : runtime(*its_runtime), graph(std::move(counted)) {
      ++runtime.graphs_live;
    }
    ~CountedGraph() override {
      EXPECT_FALSE(runtime.busy_) << "a graph goes that may still be running";
      --runtime.graphs_live;
    }
    CountingRuntime& runtime;
    const std::unique_ptr<Graph> graph;
  };

  const Graphs graphs_;
  bool busy_ = false;  // work was given since somebody waited
  mutable Mutex mutex_;
  std::map<void*, int64_t> pinned_ ABSL_GUARDED_BY(mutex_);
  int64_t pinned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t most_pinned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace bellwether::gpu
