#include "coordinator/memory_pool.h"

#include <algorithm>
#include <deque>
#include <map>

#include "absl/strings/str_cat.h"
#include "model/gpu_size.h"

namespace bellwether {
namespace {

constexpr size_t kUuidShown = 8;

class Pools {
 public:
  // The pool of this key, with the least free memory that was told of it.
  size_t Find(const std::string& key, const std::string& name, const std::string& host, int64_t free_bytes) {
    const auto [it, is_new] = index_.emplace(key, pools_.size());
    if (is_new) pools_.push_back({.name = name, .free_bytes = free_bytes, .host = host});
    MemoryPool& pool = pools_[it->second];
    pool.free_bytes = std::min(pool.free_bytes, free_bytes);
    return it->second;
  }
  MemoryPool& operator[](size_t index) { return pools_[index]; }
  std::vector<MemoryPool> Take() { return std::move(pools_); }

 private:
  std::map<std::string, size_t> index_;
  std::vector<MemoryPool> pools_;
};

void FindStreamRates(absl::Span<const WorkerInventory> workers, Offload offload, MemoryPool* pool) {
  for (const size_t i : pool->workers) {
    const WorkerInventory& worker = workers[i];
    const bool drive = offload == Offload::kAuto || offload == Offload::kDrive;
    const bool host = worker.gpu && (offload == Offload::kAuto || offload == Offload::kHost);
    const double drive_rate = drive ? worker.drive_bytes_per_second : 0;
    const double host_rate = host ? worker.gpu->copy_bytes_per_second : 0;
    const bool first = i == pool->workers[0];
    pool->drive_bytes_per_second = first ? drive_rate : std::min(pool->drive_bytes_per_second, drive_rate);
    pool->host_copy_bytes_per_second =
        first ? host_rate : std::min(pool->host_copy_bytes_per_second, host_rate);
  }
}

}  // namespace

int64_t GpuHostBytes(const ModelConfig& config, const PlannerOptions& options) {
  return kGpuProcessBytes + kGpuPieceBytes +
         GpuPinnedBytes(config,
                        {.step_tokens = options.step_tokens, .context_tokens = options.context_tokens});
}

std::vector<MemoryPool> MemoryPools(absl::Span<const WorkerInventory> workers, const ModelConfig& config,
                                    const PlannerOptions& options) {
  Pools pools;
  for (size_t i = 0; i < workers.size(); ++i) {
    const WorkerInventory& worker = workers[i];
    const size_t host =
        pools.Find("host " + worker.host, "host " + worker.host, worker.host, worker.memory_bytes);
    if (!worker.gpu) {
      pools[host].workers.push_back(i);
      continue;
    }
    pools[host].process_bytes += GpuHostBytes(config, options);
    const size_t gpu = pools.Find(
        "gpu " + worker.gpu->uuid,
        absl::StrCat(worker.gpu->name, " ", worker.gpu->uuid.substr(0, kUuidShown), " of host ", worker.host),
        worker.host, worker.gpu->free_bytes);
    pools[gpu].gpu = true;
    pools[gpu].workers.push_back(i);
  }
  std::vector<MemoryPool> all = pools.Take();
  for (MemoryPool& pool : all) {
    const double share = pool.gpu ? options.device_memory_share : options.memory_share;
    FindStreamRates(workers, options.offload, &pool);
    pool.usable_bytes = static_cast<int64_t>(static_cast<double>(pool.free_bytes) * share);
  }
  for (const MemoryPool& host : all) {
    if (host.gpu) continue;
    const auto is_its_gpu = [&](const MemoryPool& pool) { return pool.gpu && pool.host == host.host; };
    const int64_t gpus = std::count_if(all.begin(), all.end(), is_its_gpu);
    for (MemoryPool& pool : all) {
      if (is_its_gpu(pool))
        pool.host_room_bytes = std::max<int64_t>(0, host.usable_bytes - host.process_bytes) / gpus;
    }
  }
  return all;
}

}  // namespace bellwether
