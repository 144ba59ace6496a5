#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "common/aligned_buffer.h"
#include "kernels/kernels.h"
#include "worker/device/device.h"
#include "worker/kv_cache/kv_cache.h"
#include "worker/link/tree_sum.h"
#include "worker/thread_pool.h"

namespace bellwether {

// The kernels of one level, spread over the threads of one worker. How the work is cut never changes a bit
// (kernels.h).
class CpuOps : public DeviceOps {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceOps>> Create(const Device::OpsOptions& options,
                                                           ThreadPool::Options threads);

  absl::StatusOr<float*> Allocate(int64_t floats) override;
  absl::StatusOr<float*> AllocateHost(int64_t floats) override { return Allocate(floats); }
  int64_t kv_bytes() const override { return kv_cache_.bytes(); }

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
  void SumRoots(absl::Span<const float* const> roots, int64_t count, float* out) override;

  absl::Status Read(const float* from, absl::Span<float> to) override;
  absl::Status Write(absl::Span<const float> from, float* to) override;
  absl::Status Finish() override { return absl::OkStatus(); }
  float* HostView(float* data) override { return data; }
  void OnHost(int64_t items, absl::FunctionRef<void(int64_t, int64_t)> body) override {
    pool_.ParallelForDynamic(items, /*grain=*/1, body);
  }

 private:
  // A piece of attention: one KV head and as many rows as one kernel call takes with all query heads of that
  // KV head.
  struct Piece {
    const Batch::Run* run;
    int64_t kv_head;
    Range rows;  // of the batch, all within `run`
  };
  struct Memory {
    KvCache kv_cache;
    AlignedBuffer prepared;        // one block of rows, prepared for the widest product
    AlignedBuffer pieces;          // Piece[]: a block of rows has at most one a row and KV head
    AlignedBuffer cosines, sines;  // of a step, [row][head_dim / 2]; empty with ALiBi
  };
  static absl::StatusOr<Memory> Reserve(const Device::OpsOptions& options);
  CpuOps(const Device::OpsOptions& options, const kernels::KernelTable& kernels, ThreadPool::Options threads,
         Memory memory);

  // body(begin, end) for ranges of rows; small batches stay on the calling thread, where waking others costs
  // more.
  void ForRows(int64_t rows, ThreadPool::Body body);
  void MultiplyPrepared(int64_t rows, absl::Span<const Product> products);
  // In place; nothing where there is no weight.
  void NormHeads(DeviceVector weight, int64_t count, float* heads);
  // Fills pieces_ and says how many there are.
  int64_t CutAttention(Range rows);
  // `first_row` of the batch is row 0 of `query` and `out`.
  void AttendPiece(int64_t layer, const Piece& piece, int64_t first_row, ConstRows query, MutableRows out);

  const kernels::KernelTable& kernels_;
  ThreadPool pool_;
  const KvCache kv_cache_;
  const AlignedBuffer prepared_, pieces_;
  std::vector<AlignedBuffer> allocated_;
  TreeSum tree_sum_;

  const ModelConfig& config_;
  const Range heads_, kv_heads_;
  const int64_t queries_per_kv_;     // query heads that share a KV head, in the whole model
  std::vector<float> alibi_slopes_;  // of every query head; empty with RoPE
  const float score_scale_;
  const std::vector<float> inverse_frequencies_;  // RoPE: [head_dim / 2]; empty with ALiBi
  const Batch* batch_ = nullptr;
  // RoPE angles of the batch's rows, [rows][head_dim / 2] each.
  const AlignedBuffer cosines_, sines_;
};

}  // namespace bellwether
