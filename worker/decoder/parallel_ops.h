#pragma once

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "kernels/kernels.h"
#include "worker/thread_pool.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {

// One of several products of the same input.
struct Product {
  const kernels::PackedMatrix* weights = nullptr;
  const std::vector<float>* bias = nullptr;  // added to every row unless null or empty
  float* y = nullptr;
  int64_t stride = 0;       // floats between rows of y
  int64_t root_stride = 0;  // floats between roots of the reduction tree (row-parallel matrices)
};

// Kernels spread over the threads of one worker. How the work is cut never changes a bit (kernels.h). Used by
// one thread at a time; scratch grows to the largest call and stays.
class ParallelOps {
 public:
  ParallelOps(const kernels::KernelTable& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  const kernels::KernelTable& kernels() const { return kernels_; }

  // y = x W^T + bias for each product. All matrices have the same number of columns.
  void Multiply(kernels::ConstRows x, absl::Span<const Product> products);

  void Norm(kernels::ConstRows x, const NormWeights& weights, int64_t cols, double epsilon,
            kernels::MutableRows out);

  // body(begin, end) for ranges of rows; small batches stay on the calling thread, where waking others costs
  // more.
  void ForRows(int64_t rows, ThreadPool::Body body);
  void ForItems(int64_t items, ThreadPool::Body body) { pool_.ParallelForDynamic(items, /*grain=*/1, body); }

 private:
  void MultiplyPrepared(int64_t rows, absl::Span<const Product> products);

  const kernels::KernelTable& kernels_;
  ThreadPool& pool_;
  AlignedBuffer prepared_;
};

}  // namespace bellwether
