#pragma once

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/status.h"
#include "kernels/gpu/runtime.h"
#include "model/config.h"
#include "worker/device/gpu_ops.h"
#include "worker/link/nccl_communicator.h"
#include "worker/link/nccl_library.h"

// NCCL with one rank that sends to itself (gpu_check.cc): whether the library is as nccl_library.h declares
// it, and what a group of copies takes of the host's time. One card is enough.

namespace bellwether {

struct NcclAlone {
  bool equal = false;  // what came to what was sent
  // Of the host, a group of a send and a receive.
  double group_seconds = 0;
  double blocking_group_seconds = 0;  // of a communicator that may block; 0: the library has none
};

class NcclAloneTrial {
 public:
  NcclAloneTrial(std::shared_ptr<gpu::Runtime> runtime, std::shared_ptr<const NcclLibrary> library)
      : runtime_(std::move(runtime)), library_(std::move(library)) {}

  absl::StatusOr<NcclAlone> Run() {
    const ModelConfig config = {
        .layers = 1, .hidden = 64, .heads = 1, .kv_heads = 1, .head_dim = 16, .ffn = 64, .vocab = 16};
    BW_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceOps> made,
                        GpuOps::Create(runtime_,
                                       {.config = &config,
                                        .kernel_level = runtime_->info().numeric_class,
                                        .rank = {.slices = {0, 1}},
                                        .layers = 1,
                                        .kv_blocks = 1,
                                        .context_tokens = 32,
                                        .step_tokens = 8,
                                        .roots = {{0, 1}}},
                                       /*layer_rows_max=*/8, /*threads=*/1));
    auto& ops = static_cast<GpuOps&>(*made);
    std::vector<float> values(kFloats), received(kFloats);
    for (int i = 0; i < kFloats; ++i) values[i] = static_cast<float>(i) + 0.5f;
    BW_ASSIGN_OR_RETURN(from_, ops.Allocate(kFloats));
    BW_ASSIGN_OR_RETURN(to_, ops.Allocate(kFloats));
    BW_RETURN_IF_ERROR(ops.Write(values, from_));

    NcclAlone alone;
    {
      NcclCommunicator communicator({.library = library_, .ops = &ops, .connect_limit = absl::Seconds(30)});
      nccl::UniqueId id;
      BW_RETURN_IF_ERROR(library_->StatusOf(library_->call().get_unique_id(&id), "making an id", nullptr));
      BW_RETURN_IF_ERROR(communicator.Connect(id, {}));
      const auto exchange = [&] {
        return communicator.Exchange(
            {{.peer = 0, .from = from_, .floats = kFloats}, {.peer = 0, .to = to_, .floats = kFloats}});
      };
      BW_RETURN_IF_ERROR(exchange());
      BW_RETURN_IF_ERROR(ops.Read(to_, absl::MakeSpan(received)));
      alone.equal = received == values;
      const Clock::time_point begin = Clock::now();
      for (int i = 0; i < kGroups; ++i) BW_RETURN_IF_ERROR(exchange());
      alone.group_seconds = SecondsSince(begin) / kGroups;
      BW_RETURN_IF_ERROR(ops.Finish());
    }
    BW_ASSIGN_OR_RETURN(alone.blocking_group_seconds, BlockingGroupSeconds());
    return alone;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kFloats = 8192, kGroups = 200;
  static double SecondsSince(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  absl::StatusOr<double> BlockingGroupSeconds() {
    const nccl::Functions& call = library_->call();
    nccl::UniqueId id;
    BW_RETURN_IF_ERROR(library_->StatusOf(call.get_unique_id(&id), "making an id", nullptr));
    nccl::Config config{.blocking = 1};
    nccl::Communicator* communicator = nullptr;
    if (call.comm_init_rank_config(&communicator, 1, id, 0, &config) != nccl::kSuccess) return 0;
    Clock::time_point begin;
    int result = nccl::kSuccess;
    for (int i = -1; i < kGroups && result == nccl::kSuccess; ++i) {
      if (i == 0) begin = Clock::now();
      result = call.group_start();
      if (result == nccl::kSuccess)
        result = call.send(from_, kFloats, nccl::kFloat32, 0, communicator, runtime_->stream());
      if (result == nccl::kSuccess)
        result = call.receive(to_, kFloats, nccl::kFloat32, 0, communicator, runtime_->stream());
      const int end = call.group_end();
      if (result == nccl::kSuccess) result = end;
    }
    const double seconds = SecondsSince(begin) / kGroups;
    const absl::Status status = library_->StatusOf(result, "copies", communicator);
    const absl::Status done = runtime_->Synchronize();
    (void)call.comm_abort(communicator);
    BW_RETURN_IF_ERROR(status);
    BW_RETURN_IF_ERROR(done);
    return seconds;
  }

  const std::shared_ptr<gpu::Runtime> runtime_;
  const std::shared_ptr<const NcclLibrary> library_;
  float *from_ = nullptr, *to_ = nullptr;
};

}  // namespace bellwether
