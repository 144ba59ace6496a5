#include "kernels/gpu/emulate.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bellwether::gpu {
namespace {

constexpr int64_t kGridYZMax = 65535;
constexpr int kHostThreadsMax = 256;

// Blocks that no launch uses: their stacks and shared memory are worth keeping.
class BlockPool {
 public:
  std::unique_ptr<emulated::Block> Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<emulated::Block>();
    std::unique_ptr<emulated::Block> block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  void Return(std::unique_ptr<emulated::Block> block) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<emulated::Block>> free_;
};

BlockPool& Pool() {
  static auto* pool = new BlockPool;  // never destroyed: threads may outlive main
  return *pool;
}

absl::Status CheckShape(const LaunchShape& shape, const EmulateOptions& options) {
  const auto complain = [&](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat("launch of ", shape.name, ": ", what...));
  };
  if (options.memory == nullptr) return complain("no memory");
  if (shape.threads <= 0 || shape.threads % 32 != 0 || shape.threads > emulated::Block::kThreadsMax)
    return complain(shape.threads, " threads a block");
  if (shape.shared_bytes < 0 || shape.shared_bytes > options.shared_bytes_max)
    return complain(shape.shared_bytes, " bytes of shared memory");
  if (shape.grid_x <= 0 || shape.grid_y <= 0 || shape.grid_z <= 0 || shape.grid_y > kGridYZMax ||
      shape.grid_z > kGridYZMax)
    return complain("a grid of ", shape.grid_x, " x ", shape.grid_y, " x ", shape.grid_z, " blocks");
  return absl::OkStatus();
}

// Visits 0 ... count - 1 in an order that the seed gives.
struct BlockOrder {
  BlockOrder(int64_t count, uint64_t seed) : count(count), first(static_cast<int64_t>(seed % count)) {
    step = std::max<int64_t>(1, static_cast<int64_t>((seed / 7) % count));
    while (std::gcd(step, count) != 1) ++step;
  }
  int64_t at(int64_t i) const {
    return static_cast<int64_t>((static_cast<__int128>(i) * step + first) % count);
  }
  int64_t count, first, step;
};

}  // namespace

absl::Status EmulateLaunch(const LaunchShape& shape, const EmulateOptions& options,
                           void (*body)(const void* args), const void* args) {
  if (absl::Status status = CheckShape(shape, options); !status.ok()) return status;
  const emulated::Block::Task task = {.shape = shape,
                                      .memory = options.memory,
                                      .tensor_core = options.tensor_core,
                                      .overlaps = options.overlaps,
                                      .barriers = options.barriers,
                                      .body = body,
                                      .args = args};
  const BlockOrder order(int64_t{shape.grid_x} * shape.grid_y * shape.grid_z, options.seed);
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  absl::Status failure;  // the first
  const auto run_blocks = [&] {
    std::unique_ptr<emulated::Block> block = Pool().Take();
    for (int64_t i = next++; i < order.count; i = next++) {
      const absl::Status status = block->Run(task, order.at(i), options.seed);
      if (status.ok() && block->passed().empty()) continue;
      std::lock_guard<std::mutex> lock(mutex);
      for (const Where& where : block->passed()) emulated::AddPlace(where, options.barriers->passed);
      if (status.ok()) continue;
      next = order.count;
      failure.Update(status);
    }
    Pool().Return(std::move(block));
  };
  std::vector<std::thread> helpers;
  const int64_t threads = std::min<int64_t>({options.threads, order.count, kHostThreadsMax});
  for (int64_t i = 1; i < threads; ++i) helpers.emplace_back(run_blocks);
  run_blocks();
  for (std::thread& helper : helpers) helper.join();
  return failure;
}

}  // namespace bellwether::gpu
