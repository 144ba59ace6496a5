#include "worker/decoder/parallel_ops.h"

#include <algorithm>

#include "common/check.h"

namespace bellwether {
namespace {

// Below this many rows an elementwise operation takes less time than waking the other threads.
constexpr int64_t kRowsWorthSharing = 4;

kernels::ConstRows Part(kernels::ConstRows x, int64_t begin, int64_t end) {
  return {x.row(begin), end - begin, x.stride};
}
kernels::MutableRows Part(kernels::MutableRows x, int64_t begin, int64_t end) {
  return {x.row(begin), end - begin, x.stride};
}

}  // namespace

void ParallelOps::ForRows(int64_t rows, ThreadPool::Body body) {
  if (rows < kRowsWorthSharing) {
    if (rows > 0) body(0, rows);
  } else {
    pool_.ParallelFor(rows, body);
  }
}

void ParallelOps::Norm(kernels::ConstRows x, const NormWeights& weights, int64_t cols, double epsilon,
                       kernels::MutableRows out) {
  const auto rounded_epsilon = static_cast<float>(epsilon);
  ForRows(x.rows, [&](int64_t begin, int64_t end) {
    if (weights.bias.empty()) {
      kernels_.rms_norm(Part(x, begin, end), weights.weight.data(), cols, rounded_epsilon,
                        Part(out, begin, end));
    } else {
      kernels_.layer_norm(Part(x, begin, end), weights.weight.data(), weights.bias.data(), cols,
                          rounded_epsilon, Part(out, begin, end));
    }
  });
}

void ParallelOps::Multiply(kernels::ConstRows x, absl::Span<const Product> products) {
  // Products whose matrices read the activations in the same form are done together.
  for (size_t first = 0; first < products.size();) {
    const kernels::PackedMatrix& weights = *products[first].weights;
    size_t last = first + 1;
    while (last < products.size() && weights.SharesPreparation(*products[last].weights)) ++last;

    const int64_t bytes = x.rows * weights.prepared_row_bytes();
    if (prepared_.size() < bytes) {
      auto allocated = AlignedBuffer::Allocate(bytes);
      BW_CHECK(allocated.ok());
      prepared_ = *std::move(allocated);
    }
    ForRows(x.rows, [&](int64_t begin, int64_t end) {
      kernels_.prepare_rows(weights, x, begin, end, prepared_.data());
    });
    MultiplyPrepared(x.rows, products.subspan(first, last - first));
    first = last;
  }
}

void ParallelOps::MultiplyPrepared(int64_t rows, absl::Span<const Product> products) {
  int64_t panels = 0;
  for (const Product& product : products) panels += product.weights->panels();
  pool_.ParallelFor(panels, [&](int64_t begin, int64_t end) {
    int64_t first_panel = 0;  // of the product, counted over all
    for (const Product& product : products) {
      const int64_t count = product.weights->panels();
      const int64_t from = std::max(begin, first_panel) - first_panel;
      const int64_t to = std::min(end, first_panel + count) - first_panel;
      first_panel += count;
      if (from >= to) continue;
      kernels_.matmul({.weights = product.weights,
                       .prepared = prepared_.data(),
                       .rows = rows,
                       .panel_begin = from,
                       .panel_end = to,
                       .y = product.y,
                       .stride = product.stride,
                       .root_stride = product.root_stride});
      if (product.bias == nullptr || product.bias->empty()) continue;
      const int64_t column = from * kernels::kPanelRows;
      const int64_t columns = std::min(to * kernels::kPanelRows, product.weights->rows()) - column;
      kernels_.add_bias({product.y + column, rows, product.stride}, product.bias->data() + column, columns);
    }
  });
}

}  // namespace bellwether
