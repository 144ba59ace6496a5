#include <array>
#include <atomic>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

std::array<std::atomic<int64_t>, kKernelCount> launches;

class EmulatedGraph : public Graph {
 public:
  explicit EmulatedGraph(LaunchList launched) : list(std::move(launched)) {}
  const LaunchList list;
};

// Work is done when it is asked for.
class EmulatedRuntime : public Runtime {
 public:
  explicit EmulatedRuntime(const EmulatedRuntimeOptions& options)
      : options_(options), memory_(options.memory_bytes), seed_(options.seed) {
    info_.name = "emulated GPU";
    info_.uuid = "emulated";
    info_.numeric_class = "cuda_sm90";
    info_.multiprocessors = 2;
    info_.memory_bytes = options.memory_bytes;
    info_.free_bytes = options.memory_bytes;
    info_.hopper = true;
  }

  const DeviceInfo& info() const override { return info_; }
  absl::StatusOr<int64_t> FreeBytes() override { return options_.memory_bytes - memory_.bytes_allocated(); }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    BW_ASSIGN_OR_RETURN(void* memory, memory_.Allocate(bytes));
    std::memset(memory, 0, bytes);
    return memory;
  }
  void Free(void* memory) override { Keep(memory_.Free(memory)); }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return ::operator new(bytes); }
  void FreeHost(void* memory) override { ::operator delete(memory); }

  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(to, bytes)) std::memcpy(to, from, bytes);  // of nothing, `from` may be null
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(from, bytes)) std::memcpy(to, from, bytes);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(to, bytes) && Check(from, bytes)) std::memcpy(to, from, bytes);
  }
  void Run(const LaunchList& list) override {
    for (const LaunchList::Launch& launch : list.launches()) {
      if (!status_.ok()) return;
      ++launches[static_cast<int>(launch.kernel)];
      Keep(EmulateLaunch({.grid_x = launch.shape.grid_x,
                          .grid_y = launch.shape.grid_y,
                          .grid_z = launch.shape.grid_z,
                          .threads = launch.shape.threads,
                          .shared_bytes = launch.shape.shared_bytes,
                          .name = kKernels[static_cast<int>(launch.kernel)].name},
                         {.memory = &memory_, .seed = ++seed_, .threads = options_.threads},
                         EmulatedBody(launch.kernel), list.args(launch)));
    }
  }
  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override {
    return std::make_unique<EmulatedGraph>(list);
  }
  void Run(Graph& graph) override { Run(static_cast<EmulatedGraph&>(graph).list); }
  absl::Status Synchronize() override { return status_; }
  absl::StatusOr<bool> Done() override {
    BW_RETURN_IF_ERROR(status_);
    return true;
  }

 private:
  void Keep(const absl::Status& status) { status_.Update(status); }
  bool Check(const void* p, int64_t bytes) {
    if (status_.ok() && !memory_.Contains(p, bytes)) {
      Keep(absl::InternalError(absl::StrCat("a copy of ", bytes, " bytes touches ", memory_.Describe(p))));
    }
    return status_.ok();
  }

  const EmulatedRuntimeOptions options_;
  EmulatedMemory memory_;
  DeviceInfo info_;
  uint64_t seed_;
  absl::Status status_;
};

}  // namespace

std::unique_ptr<Runtime> MakeEmulatedRuntime(const EmulatedRuntimeOptions& options) {
  return std::make_unique<EmulatedRuntime>(options);
}

int64_t EmulatedLaunches(Kernel kernel) { return launches[static_cast<int>(kernel)]; }

}  // namespace bellwether::gpu
