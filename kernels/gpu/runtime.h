#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/kernel_list.h"
#include "kernels/gpu/tensor_core.h"

// What we use of a GPU's runtime, with two bodies: CUDA (runtime_cuda.cc, or no_cuda.cc where it was not
// there when this was built) and the emulator (runtime_emulated.cc).

namespace bellwether::gpu {

class EmulatedMemory;
struct BarrierTrial;

// Launches in order, with their arguments by value: what a stream is given, and what a graph repeats.
class LaunchList {
 public:
  struct Shape {
    int32_t grid_x = 1, grid_y = 1, grid_z = 1;
    int32_t threads = 32;
    int32_t shared_bytes = 0;
    friend bool operator==(const Shape&, const Shape&) = default;
  };
  struct Launch {
    Kernel kernel;
    Shape shape;
    int32_t args_at;  // in args()
    friend bool operator==(const Launch&, const Launch&) = default;
  };

  // Of `args` every byte counts, so there are none between the fields.
  template <typename Args>
  void Add(Kernel kernel, const Shape& shape, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>);
    const auto at = static_cast<int32_t>((args_.size() + 15) / 16 * 16);
    launches_.push_back({kernel, shape, at});
    args_.resize(at + sizeof(Args));
    std::memcpy(args_.data() + at, &args, sizeof(Args));
  }
  // A launch of another list.
  void AddFrom(const LaunchList& other, const Launch& launch) {
    const auto at = static_cast<int32_t>((args_.size() + 15) / 16 * 16);
    const int bytes = kKernels[static_cast<int>(launch.kernel)].args_bytes;
    launches_.push_back({launch.kernel, launch.shape, at});
    args_.resize(at + bytes);
    std::memcpy(args_.data() + at, other.args(launch), bytes);
  }
  // Takes the last launch back.
  void RemoveLast() {
    args_.resize(launches_.back().args_at);
    launches_.pop_back();
  }
  void Clear() {
    launches_.clear();
    args_.clear();
  }
  bool empty() const { return launches_.empty(); }
  const std::vector<Launch>& launches() const { return launches_; }
  const char* args(const Launch& launch) const { return args_.data() + launch.args_at; }
  // Equal lists do the same.
  friend bool operator==(const LaunchList&, const LaunchList&) = default;

 private:
  std::vector<Launch> launches_;
  std::vector<char> args_;
};

// A list of launches that the GPU repeats at little cost.
class Graph {
 public:
  virtual ~Graph() = default;
};

// A second order of work, beside the launches: copies from the host into slots of the device's memory that
// launches use by turns. A slot is filled, used, released, and filled again. One thread, the runtime's; ends
// before it, and waits for its copies then.
class CopyLane {
 public:
  virtual ~CopyLane() = default;
  // Begins when the copies before it are done, and what the runtime was given before this slot's last
  // Release. `from` stays as it is until the slot is filled.
  virtual void Fill(int slot, void* to, const void* from, int64_t bytes) = 0;
  // What the runtime is given from now on finds the slot filled.
  virtual void Use(int slot) = 0;
  // What it has been given so far is the last that uses the slot.
  virtual void Release(int slot) = 0;
  // Whether its last copy is done, without waiting; the error that Synchronize would return.
  virtual absl::StatusOr<bool> Filled(int slot) = 0;
};

struct DeviceInfo {
  int index = 0;              // "cuda:index"
  std::string name;           // "NVIDIA H200"
  std::string uuid;           // equal for processes that share a card
  std::string numeric_class;  // kernel level of the bits it computes: "cuda_sm90"
  int multiprocessors = 0;
  int64_t shared_bytes = 0;  // of a block, at most
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
  bool hopper = false;  // has wgmma
  std::string problem;  // of ListCudaDevices: why this process cannot tell what is free, nor use the card
};

// The class of bits that a card of a compute capability computes (docs/architecture.md, Numbers).
std::string NumericClass(int major, int minor);
// Whether there are kernels for it: from compute capability 8.0 on.
bool IsSupported(const DeviceInfo& info);

// One GPU and one order of work on it. One thread at a time. The first error of a launch or a copy is kept:
// all that follows does nothing, and Synchronize returns it.
class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual const DeviceInfo& info() const = 0;
  virtual absl::StatusOr<int64_t> FreeBytes() = 0;

  // Zeros; aligned to 256 bytes. ResourceExhausted, naming the size, if there is not so much.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  virtual void Free(void* memory) = 0;  // after Synchronize
  // Host memory that copies are fast with, on a page's border.
  virtual absl::StatusOr<void*> AllocateHost(int64_t bytes) = 0;
  virtual void FreeHost(void* memory) = 0;  // from any thread

  // In order with launches; `from` is read before the next Synchronize returns.
  virtual void CopyToDevice(void* to, const void* from, int64_t bytes) = 0;
  virtual void CopyToHost(void* to, const void* from, int64_t bytes) = 0;
  virtual void CopyOnDevice(void* to, const void* from, int64_t bytes) = 0;
  virtual void Run(const LaunchList& list) = 0;
  // Null where the runtime has no use for graphs. ResourceExhausted where the GPU has no memory for this one,
  // which is no fault.
  virtual absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) = 0;
  virtual void Run(Graph& graph) = 0;

  virtual absl::StatusOr<std::unique_ptr<CopyLane>> MakeCopyLane(int slots) = 0;

  // Waits until all is done, but for copies of lanes that nothing uses yet.
  virtual absl::Status Synchronize() = 0;
  // Whether all is done, without waiting; the error that Synchronize would return.
  virtual absl::StatusOr<bool> Done() = 0;
  // The cudaStream_t of all this, for libraries that add to it; null on the emulator.
  virtual void* stream() { return nullptr; }
};

// What `bellwether devices` lists. Unavailable, saying what is wrong and what to do, if there is no driver,
// it is too old, or this program was built without CUDA; an empty list where the driver finds no card.
absl::StatusOr<std::vector<DeviceInfo>> ListCudaDevices();
absl::StatusOr<std::unique_ptr<Runtime>> MakeCudaRuntime(int index);

// The card that is emulated: what decides which kernels run, and which bits come of them.
struct EmulatedCard {
  const char* numeric_class = "cuda_sm90";
  TensorCoreClass tensor_core = kHopperTensorCore;
  bool hopper = true;  // has wgmma
  int multiprocessors = 2;
  int64_t shared_bytes = 227 << 10;
};
inline constexpr EmulatedCard kEmulatedHopper;
// The others without the shared memory that their server's cards have.
inline constexpr EmulatedCard kEmulatedBlackwell{.hopper = false, .shared_bytes = 99 << 10};
inline constexpr EmulatedCard kEmulatedAmpere{.numeric_class = "cuda_sm80",
                                              .tensor_core = kAmpereTensorCore,
                                              .hopper = false,
                                              .shared_bytes = 99 << 10};

// Stands around the launches of an emulated GPU, for tests.
class AroundLaunches {
 public:
  virtual ~AroundLaunches() = default;
  // `run` is the launch, by a schedule of the seed. Memory must be left as the launch leaves it.
  virtual absl::Status Launch(Kernel kernel, uint64_t seed, const EmulatedMemory& memory,
                              absl::FunctionRef<absl::Status(uint64_t seed, BarrierTrial& trial)> run) = 0;
};

struct EmulatedRuntimeOptions {
  uint64_t seed = 1;  // of the schedules
  int threads = 1;
  int64_t memory_bytes = int64_t{1} << 30;
  EmulatedCard card = kEmulatedHopper;
  AroundLaunches* around = nullptr;
};
std::unique_ptr<Runtime> MakeEmulatedRuntime(const EmulatedRuntimeOptions& options);

// The emulator's kernels.
using EmulatedKernel = void (*)(const void* args);
EmulatedKernel EmulatedBody(Kernel kernel);

}  // namespace bellwether::gpu
