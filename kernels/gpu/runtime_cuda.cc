#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "kernels/gpu/cuda_kernels.h"
#include "kernels/gpu/gpu_error.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

// Without one CUDA says that the driver is too old.
bool HasDriver() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess && version > 0;
}

absl::Status StatusOf(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const bool no_driver = error == cudaErrorInsufficientDriver && !HasDriver();
  const absl::string_view name = no_driver ? kNoDriver : cudaGetErrorName(error);
  return GpuError(what, name, cudaGetErrorString(error));
}

std::string Uuid(const cudaUUID_t& uuid) {
  std::string text;
  for (const char byte : uuid.bytes)
    absl::StrAppend(&text, absl::Hex(static_cast<uint8_t>(byte), absl::kZeroPad2));
  return text;
}

absl::StatusOr<DeviceInfo> InfoOf(int index) {
  cudaDeviceProp properties;
  const std::string what = absl::StrCat("cuda:", index);
  BW_RETURN_IF_ERROR(StatusOf(cudaGetDeviceProperties(&properties, index), what));
  DeviceInfo info{.index = index,
                  .name = properties.name,
                  .uuid = Uuid(properties.uuid),
                  .numeric_class = NumericClass(properties.major, properties.minor),
                  .multiprocessors = properties.multiProcessorCount,
                  .shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
                  .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem),
                  .hopper = properties.major == 9};
  return info;
}

class CudaGraph : public Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t graph) : exec(graph) {}
  ~CudaGraph() override { (void)cudaGraphExecDestroy(exec); }
  const cudaGraphExec_t exec;
};

class CudaRuntime;

class CudaCopyLane : public CopyLane {
 public:
  explicit CudaCopyLane(CudaRuntime* runtime) : runtime_(*runtime) {}
  ~CudaCopyLane() override;
  absl::Status Start(int slots);

  void Fill(int slot, void* to, const void* from, int64_t bytes) override;
  void Use(int slot) override;
  void Release(int slot) override;
  absl::StatusOr<bool> Filled(int slot) override;

 private:
  // Events that nobody has recorded yet hold nobody up.
  struct Slot {
    cudaEvent_t filled = nullptr, released = nullptr;
  };
  CudaRuntime& runtime_;  // outlives this
  cudaStream_t stream_ = nullptr;
  std::vector<Slot> slots_;
};

class CudaRuntime : public Runtime {
 public:
  explicit CudaRuntime(DeviceInfo info)
      : info_(std::move(info)), what_(absl::StrCat("cuda:", info_.index, " (", info_.name, ")")) {}
  ~CudaRuntime() override {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  absl::Status Start() {
    BW_RETURN_IF_ERROR(StatusOf(cudaSetDevice(info_.index), what_));
    BW_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), what_));
    for (int kernel = 0; kernel < kKernelCount; ++kernel) {
      if (kKernels[kernel].hopper_only && !info_.hopper) continue;
      // More than 48 KiB of shared memory are given only where that is said beforehand.
      cudaFuncAttributes attributes;
      BW_RETURN_IF_ERROR(StatusOf(cudaFuncGetAttributes(&attributes, CudaKernel(kernel)), what_));
      waits_[kernel] = attributes.ptxVersion >= 90;
      int most = 0;
      BW_RETURN_IF_ERROR(StatusOf(
          cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, info_.index), what_));
      BW_RETURN_IF_ERROR(
          StatusOf(cudaFuncSetAttribute(CudaKernel(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        most - static_cast<int>(attributes.sharedSizeBytes)),
                   what_));
    }
    return absl::OkStatus();
  }

  const DeviceInfo& info() const override { return info_; }
  void* stream() override { return stream_; }
  absl::StatusOr<int64_t> FreeBytes() override {
    Bind();
    size_t free = 0, total = 0;
    BW_RETURN_IF_ERROR(StatusOf(cudaMemGetInfo(&free, &total), what_));
    return static_cast<int64_t>(free);
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    Bind();
    void* memory = nullptr;
    const std::string what = absl::StrCat(what_, ": ", bytes, " bytes of memory");
    BW_RETURN_IF_ERROR(StatusOf(cudaMalloc(&memory, bytes), what));
    BW_RETURN_IF_ERROR(StatusOf(cudaMemsetAsync(memory, 0, bytes, stream_), what));
    return memory;
  }
  void Free(void* memory) override {
    Bind();
    Keep(cudaFree(memory), "cudaFree");
  }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override {
    Bind();
    void* memory = nullptr;
    const std::string what = absl::StrCat(what_, ": ", bytes, " bytes of pinned host memory");
    const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) return GpuError(what, kPinnedMemory, cudaGetErrorString(error));
    BW_RETURN_IF_ERROR(StatusOf(error, what));
    return memory;
  }
  // Not by Bind: other threads leave the status alone.
  void FreeHost(void* memory) override {
    (void)cudaSetDevice(info_.index);
    (void)cudaFreeHost(memory);
  }

  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    Copy(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    Copy(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    Copy(to, from, bytes, cudaMemcpyDeviceToDevice);
  }

  void Run(const LaunchList& list) override {
    Bind();
    for (const LaunchList::Launch& launch : list.launches()) {
      if (!status_.ok()) return;
      Keep(LaunchOne(list, launch), kKernels[static_cast<int>(launch.kernel)].name);
    }
  }

  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override {
    Bind();
    BW_RETURN_IF_ERROR(status_);
    BW_RETURN_IF_ERROR(StatusOf(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), what_));
    Run(list);
    cudaGraph_t graph = nullptr;
    BW_RETURN_IF_ERROR(StatusOf(cudaStreamEndCapture(stream_, &graph), what_));
    cudaGraphExec_t exec = nullptr;
    const cudaError_t made = cudaGraphInstantiate(&exec, graph, 0);
    (void)cudaGraphDestroy(graph);
    if (made != cudaSuccess) return WithoutGraph(made);
    auto ready = std::make_unique<CudaGraph>(exec);
    // Takes the memory that its first launch would take, where the lack of it would be the end.
    const cudaError_t uploaded = cudaGraphUpload(exec, stream_);
    if (uploaded != cudaSuccess) return WithoutGraph(uploaded);
    return ready;
  }
  // The thread's last error goes too, as others on it, NCCL for one, may take it for theirs.
  absl::Status WithoutGraph(cudaError_t error) {
    (void)cudaGetLastError();
    return StatusOf(error, what_);
  }
  void Run(Graph& graph) override {
    Bind();
    if (status_.ok()) Keep(cudaGraphLaunch(static_cast<CudaGraph&>(graph).exec, stream_), "a graph");
  }

  absl::StatusOr<std::unique_ptr<CopyLane>> MakeCopyLane(int slots) override {
    Bind();
    auto lane = std::make_unique<CudaCopyLane>(this);
    BW_RETURN_IF_ERROR(lane->Start(slots));
    return lane;
  }

  absl::Status Synchronize() override {
    Bind();
    const cudaError_t error = cudaStreamSynchronize(stream_);
    Keep(error, "work");
    return status_;
  }
  absl::StatusOr<bool> Done() override {
    Bind();
    return IsOver(cudaStreamQuery(stream_), "work");
  }

 private:
  friend class CudaCopyLane;

  absl::StatusOr<bool> IsOver(cudaError_t state, const char* what) {
    if (state == cudaErrorNotReady) return false;
    Keep(state, what);
    BW_RETURN_IF_ERROR(status_);
    return true;
  }

  // The current device is a thread's own, and a runtime may be handed from thread to thread.
  void Bind() { Keep(cudaSetDevice(info_.index), "cudaSetDevice"); }
  void Keep(cudaError_t error, const char* what) {
    if (error != cudaSuccess && status_.ok()) status_ = StatusOf(error, absl::StrCat(what_, ": ", what));
  }
  void Copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    Bind();
    if (bytes > 0 && status_.ok()) Keep(cudaMemcpyAsync(to, from, bytes, kind, stream_), "a copy");
  }
  // A kernel may begin while the one before ends, if it waits itself before it reads (simt.h,
  // WaitForPreviousKernel). That says the code that the card was given, not the card: later ones than were
  // known when this was built compile what knows no waiting.
  cudaError_t LaunchOne(const LaunchList& list, const LaunchList::Launch& launch) {
    cudaLaunchAttribute overlap;
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(launch.shape.grid_x, launch.shape.grid_y, launch.shape.grid_z);
    config.blockDim = dim3(launch.shape.threads);
    config.dynamicSmemBytes = launch.shape.shared_bytes;
    config.stream = stream_;
    config.attrs = &overlap;
    config.numAttrs = waits_[static_cast<int>(launch.kernel)] ? 1 : 0;
    void* args[] = {const_cast<char*>(list.args(launch))};
    return cudaLaunchKernelExC(&config, CudaKernel(static_cast<int>(launch.kernel)), args);
  }

  const DeviceInfo info_;
  const std::string what_;
  cudaStream_t stream_ = nullptr;
  std::array<bool, kKernelCount> waits_{};  // its code has WaitForPreviousKernel
  absl::Status status_;
};

absl::Status CudaCopyLane::Start(int slots) {
  const std::string what = runtime_.what_ + ": copies beside its work";
  BW_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), what));
  slots_.resize(slots);
  for (Slot& slot : slots_) {
    BW_RETURN_IF_ERROR(StatusOf(cudaEventCreateWithFlags(&slot.filled, cudaEventDisableTiming), what));
    BW_RETURN_IF_ERROR(StatusOf(cudaEventCreateWithFlags(&slot.released, cudaEventDisableTiming), what));
  }
  return absl::OkStatus();
}
CudaCopyLane::~CudaCopyLane() {
  runtime_.Bind();
  if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
  for (const Slot& slot : slots_) {
    if (slot.filled != nullptr) (void)cudaEventDestroy(slot.filled);
    if (slot.released != nullptr) (void)cudaEventDestroy(slot.released);
  }
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}
void CudaCopyLane::Fill(int slot, void* to, const void* from, int64_t bytes) {
  constexpr char kWhat[] = "a copy of weights";
  runtime_.Bind();
  if (!runtime_.status_.ok()) return;
  runtime_.Keep(cudaStreamWaitEvent(stream_, slots_[slot].released), kWhat);
  runtime_.Keep(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), kWhat);
  runtime_.Keep(cudaEventRecord(slots_[slot].filled, stream_), kWhat);
}
void CudaCopyLane::Use(int slot) {
  runtime_.Bind();
  if (runtime_.status_.ok())
    runtime_.Keep(cudaStreamWaitEvent(runtime_.stream_, slots_[slot].filled), "a wait for weights");
}
void CudaCopyLane::Release(int slot) {
  runtime_.Bind();
  if (runtime_.status_.ok())
    runtime_.Keep(cudaEventRecord(slots_[slot].released, runtime_.stream_), "work on weights");
}
absl::StatusOr<bool> CudaCopyLane::Filled(int slot) {
  runtime_.Bind();
  BW_RETURN_IF_ERROR(runtime_.status_);
  return runtime_.IsOver(cudaEventQuery(slots_[slot].filled), "a copy of weights");
}

}  // namespace

absl::StatusOr<std::vector<DeviceInfo>> ListCudaDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) return std::vector<DeviceInfo>();
  BW_RETURN_IF_ERROR(StatusOf(error, "CUDA"));
  std::vector<DeviceInfo> devices;
  for (int index = 0; index < count; ++index) {
    BW_ASSIGN_OR_RETURN(DeviceInfo info, InfoOf(index));
    size_t free = 0, total = 0;
    cudaError_t told = cudaSetDevice(index);
    if (told == cudaSuccess) told = cudaMemGetInfo(&free, &total);
    // One that another process holds for itself must not hide those that are of use.
    info.problem = std::string(StatusOf(told, absl::StrCat("cuda:", index)).message());
    info.free_bytes = static_cast<int64_t>(free);
    devices.push_back(std::move(info));
  }
  return devices;
}

absl::StatusOr<std::unique_ptr<Runtime>> MakeCudaRuntime(int index) {
  int count = 0;
  BW_RETURN_IF_ERROR(StatusOf(cudaGetDeviceCount(&count), "CUDA"));
  if (index < 0 || index >= count) {
    return absl::NotFoundError(absl::StrCat("there is no cuda:", index, ": ", count, " CUDA device",
                                            count == 1 ? "" : "s", " (CUDA_VISIBLE_DEVICES hides others)"));
  }
  BW_ASSIGN_OR_RETURN(DeviceInfo info, InfoOf(index));
  if (!IsSupported(info)) {
    return GpuError(absl::StrCat("cuda:", index, " (", info.name, ")"), "cudaErrorNoKernelImageForDevice",
                    "not supported");
  }
  auto runtime = std::make_unique<CudaRuntime>(std::move(info));
  BW_RETURN_IF_ERROR(runtime->Start());
  return runtime;
}

}  // namespace bellwether::gpu
