#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/gpu/runtime.h"

// For tests and benchmarks of what is asked of a GPU: a runtime that stands before another one.

namespace bellwether::gpu {

// Hands everything on.
class ForwardingRuntime : public Runtime {
 public:
  explicit ForwardingRuntime(std::shared_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

  const DeviceInfo& info() const override { return runtime_->info(); }
  absl::StatusOr<int64_t> FreeBytes() override { return runtime_->FreeBytes(); }
  absl::StatusOr<void*> Allocate(int64_t bytes) override { return runtime_->Allocate(bytes); }
  void Free(void* memory) override { runtime_->Free(memory); }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return runtime_->AllocateHost(bytes); }
  void FreeHost(void* memory) override { runtime_->FreeHost(memory); }
  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    runtime_->CopyToDevice(to, from, bytes);
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    runtime_->CopyToHost(to, from, bytes);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    runtime_->CopyOnDevice(to, from, bytes);
  }
  void Run(const LaunchList& list) override { runtime_->Run(list); }
  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override {
    return runtime_->MakeGraph(list);
  }
  void Run(Graph& graph) override { runtime_->Run(graph); }
  absl::StatusOr<std::unique_ptr<CopyLane>> MakeCopyLane(int slots) override {
    return runtime_->MakeCopyLane(slots);
  }
  absl::Status Synchronize() override { return runtime_->Synchronize(); }
  absl::StatusOr<bool> Done() override { return runtime_->Done(); }
  void* stream() override { return runtime_->stream(); }

 protected:
  const std::shared_ptr<Runtime> runtime_;
};

}  // namespace bellwether::gpu
