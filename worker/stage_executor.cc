#include "worker/stage_executor.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "kernels/kernels.h"
#include "worker/decoder/batch.h"
#include "worker/decoder/decoder_layer.h"
#include "worker/decoder/output_head.h"
#include "worker/decoder/parallel_ops.h"
#include "worker/kv_cache/kv_cache.h"
#include "worker/link/all_reduce.h"
#include "worker/sequence_table.h"
#include "worker/watched_link.h"
#include "worker/weights/loaded_shard.h"

namespace bellwether {
namespace {

int Ranks(const Layout& layout, int stage) { return static_cast<int>(layout.stages[stage].ranks.size()); }

class Executor : public StageExecutor {
 public:
  Executor(Options options, const kernels::KernelTable& kernels, KvCache cache);

  absl::StatusOr<StepResult> Run(const Step& step) override;
  void Abort(const absl::Status& reason) override;
  int64_t kv_bytes() const override { return cache_.bytes(); }

 private:
  absl::Status RunStep(const Step& step, StepResult& result);
  absl::Status Embed(const Batch& batch, MessageTag tag, kernels::MutableRows residual);
  absl::Status ReceiveResidual(MessageTag tag, kernels::MutableRows residual);
  absl::Status SendResidual(MessageTag tag, kernels::MutableRows residual);
  TensorParallelGroup::Options GroupOptions();

  const Assignment assignment_;
  const std::shared_ptr<const LoadedShard> shard_;
  const ModelConfig& config_;
  ExecutorProgress* const progress_;
  std::vector<std::unique_ptr<Link>> stage_links_;  // flat order; ranks of this stage have moved into group_
  ThreadPool pool_;
  ParallelOps ops_;
  KvCache cache_;
  TensorParallelGroup group_;
  DecoderLayer layer_;
  std::unique_ptr<OutputHead> head_;  // last stage only
  SequenceTable sequences_;
  BatchBuilder batch_builder_;
  RowBuffer residual_buffer_;
  std::vector<int> row_owners_;
  StepId last_step_;
};

Executor::Executor(Options options, const kernels::KernelTable& kernels, KvCache cache)
    : assignment_(std::move(options.assignment)),
      shard_(std::move(options.shard)),
      config_(shard_->config),
      progress_(options.progress),
      stage_links_(std::move(options.links)),
      pool_(options.threads, options.cpus),
      ops_(kernels, pool_),
      cache_(std::move(cache)),
      group_(GroupOptions()),
      layer_({.config = &config_,
              .slices = assignment_.rank_layout().slices,
              .kv_cache = &cache_,
              .group = &group_,
              .ops = &ops_}),
      sequences_({.vocab = config_.vocab,
                  .kv_blocks = assignment_.kv_blocks,
                  .context_tokens = assignment_.context_tokens,
                  .step_tokens = assignment_.step_tokens}),
      batch_builder_(config_) {
  if (assignment_.last_stage()) {
    head_ = std::make_unique<OutputHead>(OutputHead::Options{
        .shard = shard_.get(), .assignment = &assignment_, .group = &group_, .ops = &ops_});
  }
}

TensorParallelGroup::Options Executor::GroupOptions() {
  TensorParallelGroup::Options options{.stage = assignment_.stage,
                                       .rank = assignment_.rank,
                                       .slices_total = SliceCount(config_),
                                       .add = ops_.kernels().add};
  const int first = FlatIndex(assignment_.layout, assignment_.stage, 0);
  for (const RankLayout& rank : assignment_.stage_layout().ranks) {
    const int index = first + static_cast<int>(options.rank_slices.size());
    options.rank_slices.push_back(rank.slices);
    options.links.push_back(std::move(stage_links_[index]));
  }
  return options;
}

absl::StatusOr<StepResult> Executor::Run(const Step& step) {
  StepResult result{.epoch = step.epoch, .id = step.id};
  progress_->step = step.id.value;
  const absl::Status status = RunStep(step, result);
  if (!status.ok()) {
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
  const kernels::MutableRows residual = residual_buffer_.Get(batch.rows(), config_.hidden);
  if (assignment_.first_stage()) {
    BW_RETURN_IF_ERROR(Embed(batch, tag, residual));
  } else {
    BW_RETURN_IF_ERROR(ReceiveResidual(tag, residual));
  }

  const Range layers = shard_->layers;
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    tag.layer = static_cast<int32_t>(layer);
    progress_->layer = tag.layer;
    progress_->counter.fetch_add(1, std::memory_order_relaxed);
    const int64_t local = layer - layers.begin;
    BW_RETURN_IF_ERROR(layer_.Run(shard_->layer_weights[local], local, batch, tag, residual));
  }
  tag.layer = -1;
  if (!assignment_.last_stage()) return SendResidual(tag, residual);
  return head_->Run(step, batch, tag, AsConst(residual), result);
}

// Every rank looks up the rows it owns; the others are copied from their owners, never summed.
absl::Status Executor::Embed(const Batch& batch, MessageTag tag, kernels::MutableRows residual) {
  const Range own = assignment_.rank_layout().embedding_rows;
  ops_.ForRows(batch.rows(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const TokenId token = batch.tokens[row];
      if (token < own.begin || token >= own.end) continue;
      shard_->embedding.GetRow(token - own.begin, absl::MakeSpan(residual.row(row), config_.hidden));
    }
  });
  if (group_.size() > 1) {
    const std::vector<RankLayout>& ranks = assignment_.stage_layout().ranks;
    row_owners_.clear();
    for (TokenId token : batch.tokens) {
      const auto owner = std::find_if(ranks.begin(), ranks.end(), [&](const RankLayout& rank) {
        return rank.embedding_rows.begin <= token && token < rank.embedding_rows.end;
      });
      row_owners_.push_back(static_cast<int>(owner - ranks.begin()));
    }
    tag.kind = MessageKind::kEmbeddingRows;
    BW_RETURN_IF_ERROR(
        group_.ShareRows(tag, row_owners_, absl::MakeSpan(residual.data, batch.rows() * config_.hidden)));
  }
  if (config_.embedding_norm) {
    ops_.Norm(AsConst(residual), shard_->embedding_norm, config_.hidden, config_.norm_epsilon, residual);
  }
  return absl::OkStatus();
}

// All ranks of a stage hold the same residual, so rank r takes it from rank r mod T of the stage before.
absl::Status Executor::ReceiveResidual(MessageTag tag, kernels::MutableRows residual) {
  const int before = assignment_.stage - 1;
  tag.kind = MessageKind::kResidual;
  tag.stage = before;
  tag.rank = assignment_.rank % Ranks(assignment_.layout, before);
  Link& link = *stage_links_[FlatIndex(assignment_.layout, before, tag.rank)];
  return link.Receive(tag, absl::MakeSpan(residual.data, residual.rows * residual.stride));
}

absl::Status Executor::SendResidual(MessageTag tag, kernels::MutableRows residual) {
  const int next = assignment_.stage + 1;
  tag.kind = MessageKind::kResidual;
  for (int rank = assignment_.rank; rank < Ranks(assignment_.layout, next);
       rank += Ranks(assignment_.layout, assignment_.stage)) {
    Link& link = *stage_links_[FlatIndex(assignment_.layout, next, rank)];
    BW_RETURN_IF_ERROR(link.Send(tag, absl::MakeConstSpan(residual.data, residual.rows * residual.stride)));
  }
  return absl::OkStatus();
}

void Executor::Abort(const absl::Status& reason) {
  group_.Abort(reason);
  for (const auto& link : stage_links_) {
    if (link != nullptr) link->Abort(reason);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<StageExecutor>> StageExecutor::Create(Options options) {
  const auto level = kernels::ParseKernelLevel(options.assignment.numeric.kernel_level);
  if (!level.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no kernel level \"", options.assignment.numeric.kernel_level, "\""));
  }
  BW_ASSIGN_OR_RETURN(const kernels::KernelTable* kernels, kernels::GetKernels(*level));
  const ModelConfig& config = options.shard->config;
  BW_ASSIGN_OR_RETURN(KvCache cache,
                      KvCache::Create({.layers = options.shard->layers.size(),
                                       .heads = SliceKvHeads(config, options.shard->rank.slices).size(),
                                       .head_dim = config.head_dim,
                                       .blocks = options.assignment.kv_blocks,
                                       .dtype = options.assignment.numeric.kv_type}));
  for (size_t i = 0; i < options.links.size(); ++i) {
    if (options.links[i] == nullptr) continue;
    options.links[i] =
        std::make_unique<WatchedLink>(std::move(options.links[i]), static_cast<int>(i), options.progress);
  }
  return std::make_unique<Executor>(std::move(options), *kernels, std::move(cache));
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
