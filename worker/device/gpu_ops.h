#pragma once

#include <algorithm>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "kernels/gpu/runtime.h"
#include "worker/device/device.h"
#include "worker/device/gpu_weights.h"
#include "worker/thread_pool.h"

namespace bellwether {

// The operations of a step on a GPU. Operations are written down as launches of kernels and given to the GPU
// when somebody waits for them. A list that comes again, as a decode step's does, becomes a graph.
class GpuOps : public DeviceOps {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceOps>> Create(std::shared_ptr<gpu::Runtime> runtime,
                                                           const Device::OpsOptions& options,
                                                           int64_t layer_rows_max, int threads);
  ~GpuOps() override;

  absl::StatusOr<float*> Allocate(int64_t floats) override;
  absl::StatusOr<float*> AllocateHost(int64_t floats) override;
  int64_t kv_bytes() const override { return kv_.bytes(); }

  void Begin(const Batch& batch) override;
  void Embed(const DeviceMatrix& embedding, TokenId first, MutableRows out) override;
  void Norm(ConstRows x, const NormWeights& weights, int64_t cols, double epsilon, MutableRows out) override;
  void Multiply(ConstRows x, absl::Span<const Product> products) override;
  void RotateAndStore(int64_t layer, Range rows, const HeadNorms& norms, MutableRows query, MutableRows key,
                      ConstRows value) override;
  void Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) override;
  void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols) override;
  void Gelu(MutableRows x, int64_t cols) override;
  void Add(ConstRows before, MutableRows sum, DeviceVector bias, MutableRows residual) override;
  void PickRows(ConstRows x, absl::Span<const int32_t> picks, int64_t cols, MutableRows out) override;
  void PickColumns(ConstRows x, DeviceVector columns, MutableRows out) override;
  absl::StatusOr<absl::Span<const kernels::LargestValue>> Largest(ConstRows x, int64_t cols,
                                                                  int count) override;
  void SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) override;

  absl::StatusOr<bool> ReserveSlots(int slots, int64_t bytes) override;
  std::byte* FillSlot(int slot, absl::Span<std::byte> image) override;
  void UseSlot(int slot) override;
  absl::StatusOr<bool> SlotFilled(int slot) override;
  absl::Status ReleaseSlot(int slot) override;

  absl::Status Read(const float* from, absl::Span<float> to) override;
  absl::Status Write(absl::Span<const float> from, float* to) override;
  absl::Status WriteLater(absl::Span<const float> from, float* to) override;
  absl::Status Finish() override;
  float* HostView(float*) override { return nullptr; }
  void OnHost(int64_t items, absl::FunctionRef<void(int64_t, int64_t)> body) override {
    pool_.ParallelForDynamic(items, /*grain=*/1, body);
  }

  // For libraries that add work of their own to the runtime's stream.

  // Gives the GPU what has been asked for so far. What follows does not rely on what rows held before.
  void Submit();
  // How the host waits for the GPU from now on, where the stream has work that may never end: `wait` returns
  // once the runtime is done, or with an error, after which nothing waits any more: that work is to be
  // stopped before this object goes. Null: by Runtime::Synchronize.
  void WaitBy(std::function<absl::Status()> wait) { wait_ = std::move(wait); }
  gpu::Runtime& runtime() { return *runtime_; }

 private:
  static constexpr int kThreads = 256;            // of a block of the simple kernels
  static constexpr int64_t kGridRowsMax = 32768;  // blocks in y; kernels walk on from there

  static constexpr int64_t kStreamRows = 16;     // more are faster by tiles
  static constexpr int64_t kPartRowsMax = 1024;  // rows whose parts are kept at once
  static constexpr int64_t kPicksPerRow = 3;     // twice where ranks share rows, once for logits

  static const GpuMatrix& Of(const DeviceMatrix& matrix) { return static_cast<const GpuMatrix&>(matrix); }
  static int64_t Blocks(int64_t count, int64_t each) { return (count + each - 1) / each; }

  // What the batch's kernels read, one piece of memory on either side: items of attention and picks, each
  // before those that came before it; what every row has; block tables. So what a step needs lies together,
  // to be copied at once, and where it was in the step before if that had as many rows, items and picks.
  struct BatchMemory {
    int64_t tokens = 0, positions = 0, row_blocks = 0, tables = 0;  // where each begins, in bytes
  };
  // The attention of some rows of the batch: items of prompts, a warp each, then items of few columns, a
  // block each.
  struct AttentionWork {
    Range rows;
    const gpu::AttentionItem* items = nullptr;
    int64_t by_warp = 0, by_block = 0;
  };
  struct CachedGraph {
    gpu::LaunchList list;
    std::unique_ptr<gpu::Graph> graph;  // null: seen once
  };

  GpuOps(std::shared_ptr<gpu::Runtime> runtime, const Device::OpsOptions& options, int64_t layer_rows_max,
         int threads);
  absl::Status Reserve();
  absl::Status ReserveBatch();
  void PlaceRows(int64_t rows);  // in memory_
  absl::Status FillRopeTables();

  struct Grid {
    int64_t x = 1, y = 1, z = 1;
  };
  template <typename Args>
  void Launch(gpu::Kernel kernel, Grid grid, int threads, int64_t shared_bytes, const Args& args) {
    list_.Add(kernel,
              {.grid_x = static_cast<int32_t>(grid.x),
               .grid_y = static_cast<int32_t>(grid.y),
               .grid_z = static_cast<int32_t>(grid.z),
               .threads = threads,
               .shared_bytes = static_cast<int32_t>(shared_bytes)},
              args);
  }
  // `columns` of `rows` rows, a thread each.
  template <typename Args>
  void LaunchColumns(gpu::Kernel kernel, int64_t columns, int64_t rows, const Args& args) {
    if (rows == 0 || columns == 0) return;
    Launch(kernel, {(columns + kThreads - 1) / kThreads, std::min(rows, kGridRowsMax)}, kThreads, 0, args);
  }

  // Products of one preparation.
  void MultiplyAlike(ConstRows x, absl::Span<const Product> products);
  void Prepare(ConstRows x, const GpuMatrix& matrix);
  void Stream(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products);
  void Tile(int64_t rows, const GpuMatrix& first, absl::Span<const Product> products);
  void TileParts(int64_t row, int64_t rows, const GpuMatrix& matrix, const Product& product, int depth);

  bool ByTiles(int64_t rows, WeightFormat format) const;
  gpu::OperandOrder OrderFor(int64_t rows) const;
  int64_t limb_bytes() const { return operand_.bytes() / limbs_; }
  gpu::OperandOut OperandOf(int64_t rows, int64_t cols, int limbs) const;
  gpu::OperandOut OperandFor(MutableRows rows, int64_t cols);
  const AttentionWork& WorkFor(Range rows);
  void AddItems(Range rows, bool prompts, std::vector<gpu::AttentionItem>& items) const;
  bool ByWarp(const Batch::Run& run, Range rows) const;
  gpu::AttentionArgs AttentionOf(int64_t layer, const AttentionWork& work, ConstRows query,
                                 MutableRows out) const;
  void Fail(const std::string& what);
  gpu::Graph* GraphOfList();
  void MakeGraph(CachedGraph& cached);
  // Until the GPU is done; status_ says how that went.
  void Wait();

  template <typename T>
  T* Host(int64_t at) const {
    return reinterpret_cast<T*>(batch_host_.data() + at);
  }
  template <typename T>
  const T* OnDevice(int64_t at) const {
    return reinterpret_cast<const T*>(batch_device_.data() + at);
  }
  // Where the GPU finds `values`, which are added to the batch's memory; null, and the step fails, if they
  // are more than a step has.
  template <typename T>
  const T* AddToBatch(absl::Span<const T> values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    if (bytes > added_) {
      Fail("more pieces of attention or picked rows than there is room for");
      return nullptr;
    }
    added_ = (added_ - bytes) / static_cast<int64_t>(sizeof(T)) * static_cast<int64_t>(sizeof(T));
    std::copy(values.begin(), values.end(), Host<T>(added_));
    Send(added_, bytes);
    return OnDevice<T>(added_);
  }
  // Bytes of the batch's memory that the GPU is still to be given, with all that lies between them.
  void Send(int64_t at, int64_t bytes) {
    if (bytes == 0) return;
    const bool first = to_send_.size() == 0;
    to_send_ = {first ? at : std::min(to_send_.begin, at), std::max(to_send_.end, at + bytes)};
  }

  const std::shared_ptr<gpu::Runtime> runtime_;
  ThreadPool pool_;  // for what the host does in a step
  const Device::OpsOptions options_;
  const ModelConfig& config_;
  const Range heads_, kv_heads_;
  const int64_t queries_per_kv_;
  const int64_t rows_max_;  // of a layer at once
  const int limbs_;         // of what is prepared for products
  const bool tensor_kv_;    // the KV cache is bf16, in fragments
  const gpu::StoreKvArgs::Type cache_type_;
  int64_t head_bytes_ = 0;

  GpuMemory kv_, rope_, slopes_, operand_, set_sums_, parts_, batch_device_;
  PinnedMemory batch_host_;
  GpuMemory slots_;
  int64_t slot_bytes_ = 0;
  std::unique_ptr<gpu::CopyLane> lane_;  // to the slots; null: there are none
  GpuMemory largest_;                    // of the logits of a step
  PinnedMemory largest_host_;
  std::vector<GpuMemory> allocated_;
  std::vector<PinnedMemory> allocated_host_;
  BatchMemory memory_;
  std::vector<uint8_t> root_additions_;  // for SumRoots

  const Batch* batch_ = nullptr;
  std::vector<int32_t> run_tables_;            // where the block table of each of the batch's runs begins
  std::vector<AttentionWork> attention_work_;  // of this step
  int64_t added_ = 0;                          // where what was added to the batch's memory begins
  Range to_send_;                              // of the batch's memory
  // The rows that lie in operand_ already: what the last operation wrote.
  struct {
    const float* data = nullptr;
    int64_t rows = 0, cols = 0;
  } prepared_;

  // The addition that is the last launch, if it is: a norm may take it over.
  struct {
    const float* out = nullptr;
    size_t launches = 0;  // with it
    gpu::AddArgs args;
  } last_add_;

  gpu::LaunchList list_;
  std::list<CachedGraph> graphs_;  // most recently used first
  bool room_for_graphs_ = true;
  std::function<absl::Status()> wait_;
  absl::Status status_;
};

}  // namespace bellwether
