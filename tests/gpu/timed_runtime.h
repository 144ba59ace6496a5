#pragma once

#include <cuda_runtime_api.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gpu/testing/forwarding_runtime.h"

// Runtimes that measure (gpu_bench.cc): all they are asked goes to another one.

namespace bellwether {

// The device's own clock: from the first that it is given after Start to the last that the host is.
class TimedRuntime : public gpu::ForwardingRuntime {
 public:
  explicit TimedRuntime(std::shared_ptr<gpu::Runtime> inner) : gpu::ForwardingRuntime(std::move(inner)) {
    if (stream() == nullptr) return;  // the emulator has no clock
    (void)cudaEventCreate(&begin_);
    (void)cudaEventCreate(&end_);
  }
  ~TimedRuntime() override {
    if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
    if (end_ != nullptr) (void)cudaEventDestroy(end_);
  }

  void Start() { begun_ = false; }
  // Once all is done.
  double Seconds() const {
    float milliseconds = 0;
    if (begin_ != nullptr) (void)cudaEventElapsedTime(&milliseconds, begin_, end_);
    return milliseconds * 1e-3;
  }

  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    Begin();
    gpu::ForwardingRuntime::CopyToDevice(to, from, bytes);
  }
  void Run(const gpu::LaunchList& list) override {
    Begin();
    gpu::ForwardingRuntime::Run(list);
  }
  void Run(gpu::Graph& graph) override {
    Begin();
    gpu::ForwardingRuntime::Run(graph);
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    gpu::ForwardingRuntime::CopyToHost(to, from, bytes);
    if (end_ != nullptr) (void)cudaEventRecord(end_, static_cast<cudaStream_t>(stream()));
  }

 private:
  void Begin() {
    if (begin_ != nullptr && !begun_) (void)cudaEventRecord(begin_, static_cast<cudaStream_t>(stream()));
    begun_ = true;
  }
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  bool begun_ = false;
};

// Times every kernel by events, one after the other, for `--profile`.
class ProfilingRuntime : public gpu::ForwardingRuntime {
 public:
  using gpu::ForwardingRuntime::ForwardingRuntime;
  using gpu::ForwardingRuntime::Run;
  absl::StatusOr<std::unique_ptr<gpu::Graph>> MakeGraph(const gpu::LaunchList&) override { return nullptr; }
  void Run(const gpu::LaunchList& list) override {
    if (!on) return runtime_->Run(list);
    std::vector<cudaEvent_t> events(list.launches().size() + 1);
    for (cudaEvent_t& event : events) (void)cudaEventCreate(&event);
    auto* stream = static_cast<cudaStream_t>(runtime_->stream());
    (void)cudaEventRecord(events[0], stream);
    for (size_t i = 0; i < list.launches().size(); ++i) {
      gpu::LaunchList one;
      one.AddFrom(list, list.launches()[i]);
      runtime_->Run(one);
      (void)cudaEventRecord(events[i + 1], stream);
    }
    (void)runtime_->Synchronize();
    for (size_t i = 0; i < list.launches().size(); ++i) {
      float milliseconds = 0;
      (void)cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]);
      const gpu::LaunchList::Launch& launch = list.launches()[i];
      auto& [count, total] =
          times[std::string(gpu::kKernels[static_cast<int>(launch.kernel)].name) + " grid " +
                std::to_string(launch.shape.grid_x) + "x" + std::to_string(launch.shape.grid_y) + "x" +
                std::to_string(launch.shape.grid_z) + " of " + std::to_string(launch.shape.threads)];
      ++count;
      total += milliseconds;
    }
    for (cudaEvent_t event : events) (void)cudaEventDestroy(event);
  }
  void Print(const std::string& title) {
    printf("-- %s\n", title.c_str());
    for (const auto& [name, time] : times) {
      printf("   %-60s %5d x %9.2f us = %8.3f ms\n", name.c_str(), time.first, 1e3 * time.second / time.first,
             time.second);
    }
    times.clear();
    fflush(stdout);
  }

  bool on = false;
  std::map<std::string, std::pair<int, double>> times;
};

}  // namespace bellwether
