#include "worker/stage_links.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/decoder/output_head.h"
#include "worker/link/host_group.h"
#include "worker/link/staged_group.h"
#include "worker/stage_executor.h"

namespace bellwether {
namespace {

// Peers may take long to load; whoever fails meanwhile ends the epoch through the coordinator.
constexpr absl::Duration kStartLimit = absl::Hours(1);
// All links together: NCCL may notice that a peer has gone before the link to it does.
constexpr absl::Duration kLinkClosesWithin = absl::Milliseconds(200);

int Ranks(const Layout& layout, int stage) { return static_cast<int>(layout.stages[stage].ranks.size()); }

// A link that belongs to somebody else.
class BorrowedLink : public Link {
 public:
  explicit BorrowedLink(Link& link) : link_(link) {}
  absl::Status Send(const MessageTag& tag, absl::Span<const float> data) override {
    return link_.Send(tag, data);
  }
  absl::Status Receive(const MessageTag& tag, absl::Span<float> data) override {
    return link_.Receive(tag, data);
  }
  void SetWaitLimit(absl::Duration limit) override { link_.SetWaitLimit(limit); }
  void Abort(const absl::Status& reason) override { link_.Abort(reason); }
  std::string peer() const override { return link_.peer(); }

 private:
  Link& link_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StageLinks>> StageLinks::Create(Options options) {
  const bool in_place = options.in_place;
  auto links = std::unique_ptr<StageLinks>(new StageLinks(std::move(options)));
  if (!in_place) BW_RETURN_IF_ERROR(links->AllocateHostBuffer());
  BW_RETURN_IF_ERROR(links->MakeHostGroup());
  auto* const gpu = dynamic_cast<GpuOps*>(&links->ops_);
  if (gpu == nullptr || links->nccl_use_.library == nullptr || links->members_.size < 2) return links;
  BW_RETURN_IF_ERROR(links->MakeNcclGroup(gpu));
  return links;
}

StageLinks::StageLinks(Options options)
    : assignment_(*options.assignment),
      config_(*options.config),
      ops_(*options.ops),
      progress_(options.progress),
      layer_rows_(options.layer_rows),
      own_index_(FlatIndex(assignment_.layout, assignment_.stage, assignment_.rank)),
      nccl_use_(std::move(options.nccl)),
      members_(MembersWith(assignment_)),
      links_(options.links.size()) {
  for (size_t i = 0; i < links_.size(); ++i) {
    if (options.links[i] == nullptr) continue;
    links_[i] =
        std::make_unique<WatchedLink>(std::move(options.links[i]), static_cast<int>(i), options.progress);
  }
}

absl::Status StageLinks::AllocateHostBuffer() {
  absl::StatusOr<float*> rows = ops_.AllocateHost(int64_t{assignment_.step_tokens} * config_.hidden);
  if (!rows.ok()) return Annotate(rows.status(), "rows of a step");
  host_buffer_ = *rows;
  return absl::OkStatus();
}

absl::Status StageLinks::MakeHostGroup() {
  HostGroup::Options options{.stage = assignment_.stage,
                             .rank = assignment_.rank,
                             .slices_total = SliceCount(config_),
                             .cols_max = config_.hidden};
  const int first = own_index_ - assignment_.rank;
  for (const RankLayout& rank : assignment_.stage_layout().ranks) {
    WatchedLink* const link = links_[first + options.rank_slices.size()].get();
    options.rank_slices.push_back(rank.slices);
    options.links.push_back(link == nullptr ? nullptr : std::make_unique<BorrowedLink>(*link));
  }
  const bool alone = options.rank_slices.size() == 1;  // nothing is ever sent
  if (alone || host_buffer_ == nullptr) {
    host_group_ = std::make_unique<HostGroup>(std::move(options));
    return absl::OkStatus();
  }
  StagedGroup::Limits limits{.reduce_floats = layer_rows_ * config_.hidden};
  if (assignment_.first_stage()) limits.share_floats = int64_t{assignment_.step_tokens} * config_.hidden;
  if (assignment_.last_stage()) limits.gather_floats = OutputHead::GatherFloatsMax(assignment_);
  BW_ASSIGN_OR_RETURN(host_group_, StagedGroup::Create(std::move(options), limits, &ops_));
  return absl::OkStatus();
}

absl::Status StageLinks::MakeNcclGroup(GpuOps* ops) {
  nccl_ = std::make_unique<NcclCommunicator>(NcclCommunicator::Options{
      .library = nccl_use_.library,
      .rank = own_index_ - members_.first,
      .size = members_.size,
      .ops = ops,
      .wait_limit = assignment_.step_deadline,
      .waiting =
          [progress = progress_](bool waits) {
            progress->waiting_for.store(waits ? kSomePeer : -1, std::memory_order_relaxed);
            if (!waits) progress->counter.fetch_add(1, std::memory_order_relaxed);
          },
      .on_stuck = nccl_use_.on_stuck});
  const std::vector<RankLayout>& ranks = assignment_.stage_layout().ranks;
  if (ranks.size() == 1) return absl::OkStatus();
  NcclGroup::Options options{.stage = assignment_.stage,
                             .rank = assignment_.rank,
                             .slices_total = SliceCount(config_),
                             .first_member = own_index_ - assignment_.rank - members_.first,
                             .communicator = nccl_.get(),
                             .ops = ops,
                             .fallback = host_group_.get()};
  for (const RankLayout& rank : ranks) {
    options.links.push_back(links_[own_index_ - assignment_.rank + options.rank_slices.size()].get());
    options.rank_slices.push_back(rank.slices);
  }
  BW_ASSIGN_OR_RETURN(nccl_group_,
                      NcclGroup::Create(std::move(options), {.reduce_floats = layer_rows_ * config_.hidden,
                                                             .share_cols = config_.hidden}));
  return absl::OkStatus();
}

// In the communicator. Not empty: each member has a rank or a stage beside it.
std::vector<int> StageLinks::NcclPeers() const {
  std::vector<int> peers;
  for (const int index : LinkedWorkers(assignment_)) {
    if (members_.Has(index)) peers.push_back(index - members_.first);
  }
  return peers;
}

std::vector<Link*> StageLinks::LinkPointers() const {
  std::vector<Link*> pointers;
  for (const auto& link : links_) pointers.push_back(link.get());
  return pointers;
}

void StageLinks::SetWaitLimits(absl::Duration limit) {
  for (const auto& link : links_) {
    if (link != nullptr) link->SetWaitLimit(limit);
  }
}

absl::Status StageLinks::Start() {
  if (members_.size < 2) return absl::OkStatus();
  SetWaitLimits(kStartLimit);
  BW_ASSIGN_OR_RETURN(const NcclAgreement agreement,
                      AgreeOnNccl(assignment_, members_, nccl_ == nullptr ? nullptr : nccl_use_.library.get(),
                                  LinkPointers()));
  SetWaitLimits(assignment_.step_deadline);
  if (!agreement.id.has_value()) return FailIfRequired(agreement);
  absl::Status status = nccl_->Connect(*agreement.id, NcclPeers());
  if (status.ok()) {
    LogInfo("NCCL ", NcclVersionText(nccl_use_.library->version()), " joins ", members_.size, " GPU workers");
  } else if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    BlameWhoIsGone();
  }
  return status;
}

absl::Status StageLinks::FailIfRequired(const NcclAgreement& agreement) const {
  std::string others;
  for (int i = 0; i < members_.size; ++i) {
    const int version = agreement.versions[i];
    if (nccl_use_.library != nullptr && version == nccl_use_.library->version()) continue;
    absl::StrAppend(&others, others.empty() ? "" : ", ", "worker ", members_.first + i, " has ",
                    version == 0 ? "none" : NcclVersionText(version));
  }
  if (nccl_use_.required) {
    return absl::FailedPreconditionError(absl::StrCat("the GPU workers do not all have this NCCL: ", others));
  }
  if (nccl_use_.library != nullptr) LogWarning("GPU workers talk through host memory, as for NCCL ", others);
  return absl::OkStatus();
}

// NCCL's messages have no tags: the tag comes over the link, without the rows.
absl::Status StageLinks::ReceiveResidual(MessageTag tag, MutableRows residual) {
  const int before = assignment_.stage - 1;
  tag.kind = MessageKind::kResidual;
  tag.stage = before;
  tag.rank = assignment_.rank % Ranks(assignment_.layout, before);
  const int index = FlatIndex(assignment_.layout, before, tag.rank);
  const int64_t floats = residual.rows * residual.stride;
  if (ByNccl(index)) {
    BW_RETURN_IF_ERROR(links_[index]->Receive(tag, {}));
    return nccl_->Exchange({{.peer = index - members_.first, .to = residual.data, .floats = floats}});
  }
  if (host_buffer_ == nullptr) return links_[index]->Receive(tag, absl::MakeSpan(residual.data, floats));
  BW_RETURN_IF_ERROR(links_[index]->Receive(tag, absl::MakeSpan(host_buffer_, floats)));
  // Until the buffer is used again this step has ended, or its residual has been read.
  return ops_.WriteLater(absl::MakeConstSpan(host_buffer_, floats), residual.data);
}

absl::Status StageLinks::SendResidual(MessageTag tag, MutableRows residual) {
  const int next = assignment_.stage + 1;
  tag.kind = MessageKind::kResidual;
  absl::Span<float> rows = absl::MakeSpan(residual.data, residual.rows * residual.stride);
  const int first = FlatIndex(assignment_.layout, next, 0);
  const bool by_nccl = ByNccl(first);  // a stage as a whole
  if (host_buffer_ != nullptr && !by_nccl) {
    rows = absl::MakeSpan(host_buffer_, rows.size());
    BW_RETURN_IF_ERROR(ops_.Read(residual.data, rows));
  }
  std::vector<NcclCommunicator::Transfer> transfers;
  for (int rank = assignment_.rank; rank < Ranks(assignment_.layout, next);
       rank += Ranks(assignment_.layout, assignment_.stage)) {
    BW_RETURN_IF_ERROR(links_[first + rank]->Send(tag, by_nccl ? absl::Span<const float>() : rows));
    transfers.push_back({.peer = first + rank - members_.first,
                         .from = residual.data,
                         .floats = static_cast<int64_t>(rows.size())});
  }
  return by_nccl ? nccl_->Exchange(transfers) : absl::OkStatus();
}

void StageLinks::BlameWhoIsGone() {
  const bool by_nccl = nccl_ != nullptr && nccl_->lost_a_peer();
  const absl::Duration limit =
      by_nccl ? kLinkClosesWithin / static_cast<double>(links_.size()) : absl::ZeroDuration();
  for (const auto& link : links_) {
    if (link != nullptr) link->BlameIfGone(limit);
  }
  int32_t nobody = -1;
  if (by_nccl) progress_->failed_peer.compare_exchange_strong(nobody, kSomePeer);
}

void StageLinks::Abort(const absl::Status& reason) {
  if (nccl_ != nullptr) nccl_->Abort(reason);
  for (const auto& link : links_) {
    if (link != nullptr) link->Abort(reason);
  }
}

}  // namespace bellwether
