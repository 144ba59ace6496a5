#include "coordinator/offload.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "common/check.h"
#include "model/streamed_layers.h"

namespace bellwether {
namespace {

int32_t Layers(const OffloadCandidate& candidate) {
  return static_cast<int32_t>(candidate.layer_bytes.size());
}

// So many of the worker's layers when `part` of `parts` are streamed.
int32_t ShareOf(const OffloadCandidate& candidate, int32_t part, int32_t parts) {
  return static_cast<int32_t>((int64_t{Layers(candidate)} * part + parts - 1) / parts);
}

bool IsIn(const MemoryPool& pool, const PlannedWorker& worker) {
  return std::find(pool.workers.begin(), pool.workers.end(), worker.inventory) != pool.workers.end();
}

int64_t LayerBytes(const OffloadCandidate& candidate, int32_t streamed) {
  const std::vector<bool> chosen = StreamedLayers(Layers(candidate), streamed);
  int64_t bytes = 0;
  for (size_t layer = 0; layer < chosen.size(); ++layer)
    bytes += chosen[layer] ? candidate.layer_bytes[layer] : 0;
  return bytes;
}

// Of a step.
int64_t StreamedBytes(const OffloadCandidate& candidate, int32_t streamed, const StreamedEnds& ends) {
  return LayerBytes(candidate, streamed) + (ends.head ? candidate.ends.head : 0);
}

// Of what takes turns in the buffers.
int64_t LargestImage(const OffloadCandidate& candidate, int32_t streamed, const StreamedEnds& ends) {
  const int64_t piece = ends.head ? candidate.ends.head_piece : 0;
  if (streamed == 0) return piece;
  return std::max(piece, *std::max_element(candidate.layer_bytes.begin(), candidate.layer_bytes.end()));
}

// How far a host goes outside the layers, the same for all of its workers.
enum class Reach { kNone, kEmbedding, kHead };

StreamedEnds EndsWithin(Reach reach, const EndBytes& bytes) {
  const bool head = reach == Reach::kHead && bytes.head > 0;
  const bool embedding =
      reach != Reach::kNone && bytes.embedding_spared > (bytes.rows_on_host ? 0 : bytes.embedding_piece);
  return {.embedding = bytes.one_matrix ? head : embedding, .head = head};
}

// A way to stream: so many parts of `parts` of each worker's layers.
struct Way {
  Reach reach = Reach::kNone;
  int32_t part = 0, parts = 1;
  int64_t streamed_bytes = 0;  // of all workers
};

// The one with the fewest layers, if there is room for any.
std::optional<Way> FewestLayers(absl::Span<const OffloadCandidate> candidates, Reach reach,
                                int64_t usable_bytes, int64_t kv_blocks) {
  int32_t parts = 1;
  for (const OffloadCandidate& candidate : candidates) parts = std::max(parts, Layers(candidate));
  for (int32_t part = 0; part <= parts; ++part) {
    Way way{.reach = reach, .part = part, .parts = parts};
    int64_t needed = 0;
    for (const OffloadCandidate& candidate : candidates) {
      const int32_t streamed = ShareOf(candidate, part, parts);
      const StreamedEnds ends = EndsWithin(reach, candidate.ends);
      needed += ResidentBytes(candidate, streamed, ends) + candidate.worker->activation_bytes +
                kv_blocks * candidate.worker->kv_block_bytes;
      way.streamed_bytes += StreamedBytes(candidate, streamed, ends);
    }
    if (needed <= usable_bytes) return way;
  }
  return std::nullopt;
}

}  // namespace

int64_t ResidentBytes(const OffloadCandidate& candidate, int32_t streamed, const StreamedEnds& ends) {
  BW_CHECK(0 <= streamed && streamed <= Layers(candidate));
  const EndBytes& bytes = candidate.ends;
  int64_t resident = candidate.worker->weight_bytes - LayerBytes(candidate, streamed) +
                     kLayerBuffers * LargestImage(candidate, streamed, ends);
  if (ends.head) resident -= bytes.head_spared;
  if (ends.embedding && !bytes.one_matrix) resident -= bytes.embedding_spared;
  if (ends.embedding && !bytes.rows_on_host) resident += bytes.embedding_piece;
  return resident;
}

bool StreamToFit(absl::Span<const OffloadCandidate> candidates, int64_t usable_bytes, int64_t kv_blocks) {
  std::optional<Way> best;
  for (const Reach reach : {Reach::kNone, Reach::kEmbedding, Reach::kHead}) {
    const std::optional<Way> way = FewestLayers(candidates, reach, usable_bytes, kv_blocks);
    if (way && (!best || way->streamed_bytes < best->streamed_bytes)) best = way;
  }
  if (!best) return false;
  for (const OffloadCandidate& candidate : candidates) {
    PlannedWorker& worker = *candidate.worker;
    worker.streamed_layers = ShareOf(candidate, best->part, best->parts);
    worker.streamed_ends = EndsWithin(best->reach, candidate.ends);
    worker.streamed_bytes = StreamedBytes(candidate, worker.streamed_layers, worker.streamed_ends);
    worker.resident_bytes = ResidentBytes(candidate, worker.streamed_layers, worker.streamed_ends);
  }
  return true;
}

int64_t HostBytes(absl::Span<const WorkerInventory> workers, const MemoryPool& host, const Plan& plan) {
  int64_t bytes = 0;
  for (const PlannedWorker& worker : plan.workers) {
    if (workers[worker.inventory].host == host.host) bytes += worker.host_bytes;
  }
  return bytes;
}

void ChooseHomes(const MemoryPool& gpu, absl::Span<const OffloadCandidate> candidates) {
  for (const OffloadCandidate& candidate : candidates) {
    PlannedWorker& worker = *candidate.worker;
    const bool drive = gpu.drive_bytes_per_second > 0;
    const StreamedEnds& ends = worker.streamed_ends;
    worker.stream_home = drive ? WeightHome::kDrive : WeightHome::kHost;
    worker.host_embedding_bytes = ends.embedding ? candidate.ends.embedding : 0;
    worker.host_bytes = drive ? kLayerBuffers * LargestImage(candidate, worker.streamed_layers, ends) +
                                    (ends.embedding ? candidate.ends.embedding_piece : 0)
                              : worker.streamed_bytes + worker.host_embedding_bytes;
  }
}

void PreferHosts(absl::Span<const WorkerInventory> workers, const std::vector<MemoryPool>& pools,
                 int32_t context_blocks, Plan* plan) {
  std::map<std::string, int64_t> room;  // by host
  for (const MemoryPool& pool : pools) {
    if (pool.gpu) continue;
    room[pool.host] = pool.usable_bytes - pool.process_bytes - HostBytes(workers, pool, *plan);
    for (const PlannedWorker& worker : plan->workers) {
      if (IsIn(pool, worker))
        room[pool.host] -=
            worker.weight_bytes + worker.activation_bytes + context_blocks * worker.kv_block_bytes;
    }
  }
  for (const MemoryPool& pool : pools) {
    if (!pool.gpu || pool.host_copy_bytes_per_second == 0) continue;
    int64_t needed = 0;
    for (const PlannedWorker& worker : plan->workers)
      needed +=
          IsIn(pool, worker) ? worker.streamed_bytes + worker.host_embedding_bytes - worker.host_bytes : 0;
    if (needed > room[pool.host]) continue;
    room[pool.host] -= needed;
    for (PlannedWorker& worker : plan->workers) {
      if (!IsIn(pool, worker) || !worker.streams()) continue;
      worker.stream_home = WeightHome::kHost;
      worker.host_bytes = worker.streamed_bytes + worker.host_embedding_bytes;
    }
  }
}

// Workers of a host share its drive, those of a GPU the way to it.
void PredictDrives(absl::Span<const WorkerInventory> workers, const std::vector<MemoryPool>& pools,
                   Plan* plan) {
  std::map<std::string, int64_t> from_drive;  // by host
  for (const PlannedWorker& worker : plan->workers) {
    if (worker.stream_home == WeightHome::kDrive)
      from_drive[workers[worker.inventory].host] += worker.streamed_bytes;
  }
  for (const MemoryPool& pool : pools) {
    int64_t streamed = 0;
    for (const PlannedWorker& worker : plan->workers)
      streamed += IsIn(pool, worker) ? worker.streamed_bytes : 0;
    for (PlannedWorker& worker : plan->workers) {
      if (worker.streamed_bytes == 0 || !IsIn(pool, worker)) continue;
      const auto& gpu = workers[worker.inventory].gpu;
      if (worker.stream_home == WeightHome::kDrive)
        worker.drive_seconds = static_cast<double>(from_drive[pool.host]) / pool.drive_bytes_per_second;
      if (gpu && gpu->copy_bytes_per_second > 0) {
        worker.drive_seconds =
            std::max(worker.drive_seconds, static_cast<double>(streamed) / gpu->copy_bytes_per_second);
      }
    }
  }
}

}  // namespace bellwether
