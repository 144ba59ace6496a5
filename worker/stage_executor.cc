#include "worker/stage_executor.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "worker/decoder/batch.h"
#include "worker/decoder/decoder_layer.h"
#include "worker/decoder/output_head.h"
#include "worker/device/device.h"
#include "worker/sequence_table.h"
#include "worker/stage_links.h"
#include "worker/weights/embedding_rows.h"
#include "worker/weights/layer_source.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {
namespace {

int Ranks(const Layout& layout, int stage) { return static_cast<int>(layout.stages[stage].ranks.size()); }

// Of all ranks of a stage, left to right.
std::vector<SliceRange> RootsOfStage(const StageLayout& stage, const ModelConfig& config) {
  std::vector<SliceRange> all;
  for (const RankLayout& rank : stage.ranks) {
    const std::vector<SliceRange> roots = SubtreeRoots(rank.slices, SliceCount(config));
    all.insert(all.end(), roots.begin(), roots.end());
  }
  return all;
}

class Executor : public StageExecutor {
 public:
  Executor(Options options, std::unique_ptr<DeviceOps> ops);
  // Everything that takes memory; before anything else.
  absl::Status Allocate(std::vector<std::unique_ptr<Link>> links, const NcclUse& nccl);

  absl::Status Start() override { return links_->Start(); }
  absl::StatusOr<StepResult> Run(const Step& step) override;
  void Abort(const absl::Status& reason) override {
    layers_->Abort(reason);
    if (embedding_rows_ != nullptr) embedding_rows_->Abort(reason);
    links_->Abort(reason);
  }
  int64_t kv_bytes() const override { return ops_->kv_bytes(); }

 private:
  absl::Status RunStep(const Step& step, StepResult& result);
  absl::Status CreateSources();
  absl::Status Embed(const Batch& batch, MessageTag tag, MutableRows residual);
  int64_t LayerRows() const {  // taken at once
    return std::min<int64_t>(assignment_.step_tokens, device_->layer_rows_max());
  }

  const Assignment assignment_;
  const std::shared_ptr<Device> device_;
  const std::shared_ptr<const LoadedShard> shard_;
  const ModelConfig& config_;
  ExecutorProgress* const progress_;
  const std::vector<int> cpus_;
  const bool verify_always_;
  // They end after ops_, which may be reading their buffers.
  std::unique_ptr<LayerSource> layers_;
  std::unique_ptr<EmbeddingRows> embedding_rows_;  // null where the embedding is in memory, or elsewhere
  const std::unique_ptr<DeviceOps> ops_;
  std::unique_ptr<StageLinks> links_;  // end before the memory of ops_, which NCCL may be using
  std::unique_ptr<DecoderLayer> layer_;
  std::unique_ptr<OutputHead> head_;  // last stage only
  SequenceTable sequences_;
  BatchBuilder batch_builder_;
  float* residual_ = nullptr;  // [step_tokens][hidden], on the device
  std::vector<int> row_owners_;
  StepId last_step_;
};

Executor::Executor(Options options, std::unique_ptr<DeviceOps> ops)
    : assignment_(std::move(options.assignment)),
      device_(std::move(options.device)),
      shard_(std::move(options.shard)),
      config_(shard_->config),
      progress_(options.progress),
      cpus_(std::move(options.cpus)),
      verify_always_(options.verify_always),
      ops_(std::move(ops)),
      sequences_({.vocab = config_.vocab,
                  .kv_blocks = assignment_.kv_blocks,
                  .context_tokens = assignment_.context_tokens,
                  .step_tokens = assignment_.step_tokens}) {}

absl::Status Executor::Allocate(std::vector<std::unique_ptr<Link>> links, const NcclUse& nccl) {
  absl::StatusOr<float*> residual = ops_->Allocate(int64_t{assignment_.step_tokens} * config_.hidden);
  if (!residual.ok()) return Annotate(residual.status(), "rows of a step");
  residual_ = *residual;
  BW_ASSIGN_OR_RETURN(links_, StageLinks::Create({.assignment = &assignment_,
                                                  .config = &config_,
                                                  .ops = ops_.get(),
                                                  .progress = progress_,
                                                  .layer_rows = LayerRows(),
                                                  .in_place = ops_->HostView(residual_) != nullptr,
                                                  .links = std::move(links),
                                                  .nccl = nccl}));
  BW_RETURN_IF_ERROR(CreateSources());
  TensorParallelGroup* const group = &links_->group();
  BW_ASSIGN_OR_RETURN(layer_, DecoderLayer::Create({.config = &config_,
                                                    .slices = assignment_.rank_layout().slices,
                                                    .rows_max = LayerRows(),
                                                    .reordered = shard_->reordered,
                                                    .group = group,
                                                    .ops = ops_.get()}));
  if (!assignment_.last_stage()) return absl::OkStatus();
  BW_ASSIGN_OR_RETURN(head_, OutputHead::Create({.shard = shard_.get(),
                                                 .assignment = &assignment_,
                                                 .group = group,
                                                 .ops = ops_.get(),
                                                 .layers = layers_.get()}));
  return absl::OkStatus();
}

absl::Status Executor::CreateSources() {
  BW_ASSIGN_OR_RETURN(layers_, LayerSource::Create({.shard = shard_,
                                                    .device = device_.get(),
                                                    .ops = ops_.get(),
                                                    .cpus = cpus_,
                                                    .wait_limit = assignment_.step_deadline,
                                                    .verify_always = verify_always_,
                                                    .progress = progress_}));
  if (shard_->embedding_pieces.empty()) return absl::OkStatus();
  BW_ASSIGN_OR_RETURN(embedding_rows_, EmbeddingRows::Create({.pieces = shard_->embedding_pieces,
                                                              .host_rows = links_->host_rows(),
                                                              .cpus = cpus_,
                                                              .wait_limit = assignment_.step_deadline,
                                                              .verify_always = verify_always_,
                                                              .ops = ops_.get(),
                                                              .progress = progress_}));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Executor::Run(const Step& step) {
  StepResult result{.epoch = step.epoch, .id = step.id};
  progress_->step = step.id.value;
  progress_->meter.Enter(StepPart::kCompute);
  const absl::Status status = RunStep(step, result);
  progress_->meter.Enter(StepPart::kIdle);
  progress_->meter.CountStep();
  if (!status.ok()) {
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) links_->BlameWhoIsGone();
    return Annotate(status, absl::StrCat("epoch ", step.epoch.value, ", step ", step.id.value, ", stage ",
                                         assignment_.stage, ", rank ", assignment_.rank));
  }
  return result;
}

// One step on one worker: receive or embed, the layers, then send or sample.
absl::Status Executor::RunStep(const Step& step, StepResult& result) {
  if (step.epoch != assignment_.epoch || step.id.value != last_step_.value + 1) {
    return absl::InvalidArgumentError(absl::StrCat("step out of order: after step ", last_step_.value,
                                                   " of epoch ", assignment_.epoch.value));
  }
  last_step_ = step.id;
  BW_RETURN_IF_ERROR(sequences_.Apply(step));
  const Batch& batch = batch_builder_.Build(step, sequences_);
  if (batch.rows() == 0) return absl::OkStatus();

  MessageTag tag{.epoch = step.epoch, .step = step.id, .stage = assignment_.stage, .rank = assignment_.rank};
  tag.rows = static_cast<int32_t>(batch.rows());
  tag.cols = config_.hidden;
  const MutableRows residual = {residual_, batch.rows(), config_.hidden};
  ops_->Begin(batch);
  if (assignment_.first_stage()) {
    BW_RETURN_IF_ERROR(Embed(batch, tag, residual));
  } else {
    BW_RETURN_IF_ERROR(links_->ReceiveResidual(tag, residual));
  }

  const Range layers = shard_->layers;
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    tag.layer = static_cast<int32_t>(layer);
    progress_->layer = tag.layer;
    progress_->counter.fetch_add(1, std::memory_order_relaxed);
    const int64_t local = layer - layers.begin;
    BW_ASSIGN_OR_RETURN(const LayerWeights* weights, layers_->Acquire(local));
    BW_RETURN_IF_ERROR(layer_->Run(*weights, local, tag, residual));
    BW_RETURN_IF_ERROR(layers_->Release(local));
  }
  tag.layer = -1;
  BW_RETURN_IF_ERROR(assignment_.last_stage() ? head_->Run(step, batch, tag, AsConst(residual), result)
                                              : links_->SendResidual(tag, residual));
  return ops_->Finish();  // what went wrong in a step is an error of this step
}

// Every rank looks up the rows it owns; the others are copied from their owners, never summed.
absl::Status Executor::Embed(const Batch& batch, MessageTag tag, MutableRows residual) {
  const auto first_token = static_cast<TokenId>(assignment_.rank_layout().embedding_rows.begin);
  if (embedding_rows_ != nullptr) {
    BW_RETURN_IF_ERROR(embedding_rows_->Embed(batch, residual));
  } else {
    ops_->Embed(*shard_->embedding, first_token, residual);
  }
  if (links_->group().size() > 1) {
    const std::vector<RankLayout>& ranks = assignment_.stage_layout().ranks;
    row_owners_.clear();
    for (TokenId token : batch.tokens) {
      const auto owner = std::find_if(ranks.begin(), ranks.end(), [&](const RankLayout& rank) {
        return rank.embedding_rows.begin <= token && token < rank.embedding_rows.end;
      });
      row_owners_.push_back(static_cast<int>(owner - ranks.begin()));
    }
    tag.kind = MessageKind::kEmbeddingRows;
    BW_RETURN_IF_ERROR(links_->group().ShareRows(
        tag, row_owners_, absl::MakeSpan(residual.data, batch.rows() * config_.hidden)));
  }
  if (config_.embedding_norm) {
    ops_->Norm(AsConst(residual), shard_->embedding_norm, config_.hidden, config_.norm_epsilon, residual);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StageExecutor>> StageExecutor::Create(Options options) {
  const Assignment& assignment = options.assignment;
  const ModelConfig& config = options.shard->config;
  BW_ASSIGN_OR_RETURN(std::unique_ptr<DeviceOps> ops,
                      options.device->NewOps({.config = &config,
                                              .kernel_level = assignment.numeric.kernel_level,
                                              .rank = options.shard->rank,
                                              .layers = options.shard->layers.size(),
                                              .kv_blocks = assignment.kv_blocks,
                                              .kv_type = assignment.numeric.kv_type,
                                              .context_tokens = assignment.context_tokens,
                                              .step_tokens = assignment.step_tokens,
                                              .gpu_limbs = options.shard->gpu_limbs,
                                              .cores_are_short = assignment.cores_are_short,
                                              .roots = RootsOfStage(assignment.stage_layout(), config)}));
  std::vector<std::unique_ptr<Link>> links = std::move(options.links);
  const NcclUse nccl = options.nccl;
  auto executor = std::make_unique<Executor>(std::move(options), std::move(ops));
  BW_RETURN_IF_ERROR(executor->Allocate(std::move(links), nccl));
  return executor;
}

std::vector<int> LinkedWorkers(const Assignment& assignment) {
  const Layout& layout = assignment.layout;
  std::vector<int> linked;
  for (int stage = 0; stage < static_cast<int>(layout.stages.size()); ++stage) {
    for (int rank = 0; rank < Ranks(layout, stage); ++rank) {
      const int own_ranks = Ranks(layout, assignment.stage);
      const bool peer = stage == assignment.stage && rank != assignment.rank;
      const bool sender = stage == assignment.stage - 1 && rank == assignment.rank % Ranks(layout, stage);
      const bool receiver = stage == assignment.stage + 1 && rank % own_ranks == assignment.rank;
      if (peer || sender || receiver) linked.push_back(FlatIndex(layout, stage, rank));
    }
  }
  return linked;
}

}  // namespace bellwether
