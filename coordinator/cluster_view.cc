#include "coordinator/cluster_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/format_bytes.h"
#include "common/status.h"
#include "coordinator/blame.h"
#include "coordinator/device_class.h"
#include "coordinator/model_mismatch.h"

namespace bellwether {
namespace {

constexpr absl::Duration kPlanDelayFirst = absl::Milliseconds(200);
constexpr absl::Duration kPlanDelayMax = absl::Seconds(10);
constexpr absl::Duration kRestFirst = absl::Seconds(1);  // of a worker that could not load
constexpr absl::Duration kRestMax = absl::Minutes(1);
constexpr absl::Duration kGrowRest = absl::Minutes(10);  // that fewer serve before who failed is tried again
constexpr size_t kRatesMax = 4 * kWorkersMax;            // that are remembered
constexpr int kLoadReportPercent = 10;                   // steps in which progress is told
constexpr uint64_t kEpochLeadMax = 1 << 20;              // an epoch takes a fraction of a second at least
constexpr char kNoPlanForFewer[] = "; for fewer there is no plan: ";

std::vector<std::string> LevelsByLayer(const Plan& plan) {
  std::vector<std::string> levels;
  for (size_t stage = 0; stage < plan.layout.stages.size(); ++stage)
    levels.insert(levels.end(), plan.layout.stages[stage].layers.size(), plan.kernel_levels[stage]);
  return levels;
}

}  // namespace

std::string Describe(const ClusterLayout::Member& member) {
  return absl::StrCat("worker ", member.worker.inventory.name, " (stage ", member.stage, ", rank ",
                      member.rank, ")");
}

std::string InSeconds(absl::Duration duration) {
  return absl::StrFormat("%.1f s", absl::ToDoubleSeconds(duration));
}

ClusterView::ClusterView(ClusterViewOptions options, PlanFunction plan)
    : options_(std::move(options)), plan_(std::move(plan)), known_weights_(options_.model_name) {}

std::vector<ClusterAction> ClusterView::Handle(const ClusterEvent& event, absl::Duration now) {
  if (!begun_) begun_ = now;
  if (serving() && !closing_since_) served_ += now - now_;
  now_ = now;
  actions_.clear();
  std::visit([this](const auto& it) { On(it); }, event);
  ReleaseLeaving();
  PlanIfPossible();
  return std::move(actions_);
}

void ClusterView::On(const WorkerJoined& event) {
  if (std::string reason = OtherRelease(event.worker); !reason.empty()) {
    actions_.push_back(RefuseWorker{.id = event.id, .reason = std::move(reason), .for_now = true});
    return;
  }
  if (std::string reason = ReasonToRefuse(event.worker); !reason.empty()) {
    actions_.push_back(RefuseWorker{event.id, std::move(reason)});
    return;
  }
  // One join must not use up the numbers: each takes us on by a limited step, so that the epochs of one who
  // has only heard of ours can be told from those that are made up.
  if (event.worker.last_epoch.value > last_epoch_ + kEpochLeadMax) {
    actions_.push_back(RefuseWorker{event.id,
                                    absl::StrCat("the worker has seen epoch ", event.worker.last_epoch.value,
                                                 ", this coordinator is at ", last_epoch_),
                                    /*start_afresh=*/true});
    return;
  }
  const int64_t memory = HostMemory(event.worker.inventory);
  const int64_t gpu_memory = GpuMemory(event.worker.inventory);
  Worker& worker = workers_[event.id];
  worker.info = event.worker;
  worker.info.inventory.memory_bytes = memory;
  if (worker.info.inventory.gpu) worker.info.inventory.gpu->free_bytes = gpu_memory;
  TakeKnownRates(&worker.info.inventory);
  std::optional<HeldPart>& held = worker.info.inventory.held;
  if (held && held->model_id != options_.model_id) held.reset();
  last_epoch_ = std::max(last_epoch_, event.worker.last_epoch.value);
  worker.last_beat = worker.last_change = now_;
  actions_.push_back(AcceptWorker{event.id, event.worker.inventory.name});
  if (layout_ != nullptr) TellApart();
  Grow();
}

void ClusterView::TakeKnownRates(WorkerInventory* newcomer) {
  const auto key = newcomer->gpu ? std::make_tuple(newcomer->host, newcomer->gpu->name, 0)
                                 : std::make_tuple(newcomer->host, newcomer->cpu_type, newcomer->threads);
  if (rates_.size() < kRatesMax)
    rates_.try_emplace(key, newcomer->read_bytes_per_second, newcomer->arithmetic);
  const auto known = rates_.find(key);
  if (known == rates_.end()) return;
  std::tie(newcomer->read_bytes_per_second, newcomer->arithmetic) = known->second;
}

int64_t ClusterView::HostMemory(const WorkerInventory& newcomer) const {
  int64_t held = 0;
  int64_t known = newcomer.memory_bytes;
  for (const auto& [id, worker] : workers_) {
    if (worker.info.inventory.host != newcomer.host) continue;
    if (!worker.info.inventory.gpu) held += worker.weight_bytes + worker.kv_bytes;
    known = std::max(known, worker.info.inventory.memory_bytes);
  }
  // Not all of a KV cache is in use, so what the others were told at their start is the limit.
  return std::min(known, newcomer.memory_bytes + held);
}

int64_t ClusterView::GpuMemory(const WorkerInventory& newcomer) const {
  if (!newcomer.gpu) return 0;
  int64_t held = 0;
  int64_t known = newcomer.gpu->free_bytes;
  for (const auto& [id, worker] : workers_) {
    const auto& gpu = worker.info.inventory.gpu;
    if (!gpu || gpu->uuid != newcomer.gpu->uuid) continue;
    // All of a KV cache is taken from a GPU at once; the epoch that it was for may have ended since the
    // newcomer looked.
    held += worker.weight_bytes + worker.last_kv_bytes;
    known = std::max(known, gpu->free_bytes);
  }
  return std::min(known, newcomer.gpu->free_bytes + held);
}

std::string ClusterView::OtherRelease(const JoiningWorker& worker) const {
  if (worker.protocol_version != kClusterProtocolVersion) {
    return absl::StrCat("the worker speaks protocol version ", worker.protocol_version, ", this coordinator ",
                        kClusterProtocolVersion, ": install the same release on both");
  }
  if (worker.build_id != options_.build_id) {
    return absl::StrCat("the worker is build ", worker.build_id, ", this coordinator ", options_.build_id,
                        ": unequal builds may compute different bits, install the same one on both");
  }
  return "";
}

std::string ClusterView::ReasonToRefuse(const JoiningWorker& worker) const {
  if (!worker.model_id.empty() && worker.model_id != options_.model_id) {
    return ModelMismatch(worker, options_);
  }
  const std::vector<std::string>& levels = worker.inventory.kernel_levels;
  if (levels.empty()) return "the worker names no kernel level";
  const auto fixed = kernel_levels_.find(DeviceClass(worker.inventory));
  if (fixed != kernel_levels_.end() &&
      std::find(levels.begin(), levels.end(), fixed->second) == levels.end()) {
    return absl::StrCat("this instance computes with kernel level ", fixed->second,
                        " since it first served; the worker only has ", absl::StrJoin(levels, ", "),
                        ": restart the coordinator with --kernel-level ", levels.back(), " to include it");
  }
  return "";
}

void ClusterView::On(const WorkerLost& event) { Remove(event.id, event.reason, EpochEnd::kWorkerLost); }

void ClusterView::Remove(WorkerId id, const absl::Status& reason, EpochEnd why) {
  if (workers_.erase(id) == 0) return;
  if (const ClusterLayout::Member* member = FindMember(id)) {
    EndEpoch(absl::UnavailableError(absl::StrCat(Describe(*member), " is lost: ", reason.message())), why);
  }
}

void ClusterView::On(const WorkerBeat& event) {
  const auto it = workers_.find(event.id);
  if (it == workers_.end()) return;
  Worker& worker = it->second;
  worker.last_beat = now_;
  const bool gets_on = phase_ == Phase::kLoading
                           ? event.progress.epoch == layout_->epoch && worker.loading.GetsOn(event.progress)
                           : Changed(worker.progress, event.progress);
  if (gets_on) worker.last_change = now_;
  worker.progress = event.progress;
  if (phase_ != Phase::kLoading) return;
  const ClusterLayout::Member* member = FindMember(event.id);
  const bool loaded = event.progress.epoch == layout_->epoch && event.progress.state == WorkerState::kLinking;
  if (member != nullptr && loaded) SetHeld(*member);
  loading_progress_ += gets_on ? 1 : 0;
  ReportLoading();
}

void ClusterView::ReportLoading() {
  double loaded = 0, total = 0;
  for (const ClusterLayout::Member& member : layout_->members) {
    const Worker& worker = workers_.at(member.id);
    const WorkerProgress& progress = worker.progress;
    if (progress.epoch != layout_->epoch) continue;
    // In another state it has not begun, and tells of what it did before.
    if (!worker.ready && progress.state != WorkerState::kLoading && progress.state != WorkerState::kLinking)
      continue;
    const auto bytes = static_cast<double>(progress.total_bytes);
    total += bytes;
    loaded += worker.ready ? bytes : std::min(bytes, static_cast<double>(progress.loaded_bytes));
  }
  if (total == 0) return;
  const int percent = static_cast<int>(100 * loaded / total) / kLoadReportPercent * kLoadReportPercent;
  // Less than before: another worker has begun.
  if (percent <= loaded_percent_) return;
  loaded_percent_ = percent;
  Report(absl::StrCat("workers are loading the model (epoch ", last_epoch_, "): ", percent, " % of ",
                      FormatBytes(total)));
}

void ClusterView::On(const WorkerReady& event) {
  if (phase_ != Phase::kLoading || event.epoch != layout_->epoch) return;
  const ClusterLayout::Member* member = FindMember(event.id);
  if (member == nullptr) return;
  const std::string& name = member->worker.inventory.name;
  if (std::string reason = known_weights_.Differs(name, event.hashes); !reason.empty()) {
    actions_.push_back(RefuseWorker{event.id, reason});
    return Remove(event.id, absl::FailedPreconditionError(reason), EpochEnd::kWorkerFailed);
  }
  SetHeld(*member);
  Worker& worker = workers_.at(event.id);
  worker.ready = true;
  worker.weight_bytes = event.weight_bytes;
  worker.kv_bytes = worker.last_kv_bytes = event.kv_bytes;
  worker.last_change = now_;
  StartIfAllReady();
}

void ClusterView::SetHeld(const ClusterLayout::Member& member) {
  workers_.at(member.id).info.inventory.held =
      HeldPart{.model_id = options_.model_id,
               .quantize = layout_->plan.quantize,
               .layout = std::shared_ptr<const Layout>(layout_, &layout_->plan.layout),
               .stage = member.stage,
               .rank = member.rank};
}

void ClusterView::StartIfAllReady() {
  for (const ClusterLayout::Member& member : layout_->members) {
    if (!workers_.at(member.id).ready) return;
  }
  for (const ClusterLayout::Member& member : layout_->members) workers_.at(member.id).failed_loads = 0;
  phase_ = Phase::kServing;
  plan_delay_ = absl::ZeroDuration();
  RememberLevels(layout_->plan);
  last_report_.clear();
  end_reason_.clear();
  served_short_of_ = layout_->short_of;
  if (layout_->short_of == 0) short_since_.reset();
  if (layout_->members.size() >= grown_to_) grown_to_ = 0;
  grow_again_ = now_ + kGrowRest;
  actions_.push_back(StartServing{layout_});
}

void ClusterView::RememberLevels(const Plan& plan) {
  for (const ClusterLayout::Member& member : layout_->members)
    kernel_levels_.emplace(DeviceClass(member.worker.inventory), plan.kernel_levels[member.stage]);
  layer_levels_ = LevelsByLayer(plan);
}

bool ClusterView::ComputesOtherBits(const Plan& plan) {
  const std::vector<std::string> levels = LevelsByLayer(plan);
  const auto [level, before] =
      std::mismatch(levels.begin(), levels.end(), layer_levels_.begin(), layer_levels_.end());
  if (level == levels.end() || before == layer_levels_.end()) return false;
  actions_.push_back(Warn{absl::StrCat(
      "answers may differ from earlier ones in their last bits: kernel level ", *level, " computes layer ",
      level - levels.begin(), " from now on, where ", *before, " did before")});
  return true;
}

void ClusterView::On(const WorkerFailed& event) {
  if (!workers_.contains(event.id)) return;
  if (event.epoch.value == 0) {  // it cannot go on at all
    Remove(event.id, event.reason, EpochEnd::kWorkerFailed);
    actions_.push_back(DropWorker{event.id, event.reason});
    return;
  }
  if (layout_ == nullptr || event.epoch != layout_->epoch) return;
  const ClusterLayout::Member* member = FindMember(event.id);
  if (member == nullptr) return;
  const ClusterLayout::Member* blamed = FindMember(event.blamed);
  const bool unnamed = blamed == nullptr && event.of_some_peer;
  const bool by_itself = !unnamed && (blamed == nullptr || blamed->id == event.id);
  std::string reason = by_itself ? absl::StrCat(Describe(*member), " failed: ", event.reason.message())
                                 : absl::StrCat(unnamed ? kUnnamedWorker : Describe(*blamed),
                                                " does not answer its peers: ", Describe(*member),
                                                " says: ", event.reason.message());
  bool refused = false;
  if (phase_ == Phase::kLoading && !unnamed) {
    const WorkerId culprit = by_itself ? member->id : blamed->id;
    SendToEndOfLine(culprit);
    const int others = static_cast<int>(Line().size());
    const bool enough = others >= WorkersNeeded();
    refused = by_itself && !enough;
    absl::StrAppend(&reason, !enough ? absl::StrCat("; it is tried again after ",
                                                    InSeconds(workers_.at(culprit).not_before - now_))
                             : others >= options_.workers_wanted
                                 ? "; another worker takes its place"
                                 : "; the others serve without it, if they can");
  }
  EndEpoch(absl::UnavailableError(reason),
           by_itself ? EpochEnd::kWorkerFailed : WhatAPeerNoticed(event.reason), refused);
}

void ClusterView::SendToEndOfLine(WorkerId id) {
  Worker& worker = workers_.at(id);
  absl::Duration rest = kRestFirst;
  for (int i = 0; i < worker.failed_loads && rest < kRestMax; ++i) rest *= 2;
  ++worker.failed_loads;
  worker.not_before = now_ + std::min(rest, kRestMax);
}

void ClusterView::On(const WorkerLeaving& event) {
  const auto it = workers_.find(event.id);
  if (it == workers_.end()) return;
  it->second.leaving = true;
  const ClusterLayout::Member* member = FindMember(event.id);
  if (phase_ != Phase::kServing || member == nullptr || closing_since_) return;
  closing_since_ = now_;
  actions_.push_back(CloseLayout{
      layout_->epoch, absl::StrCat(Describe(*member), " is leaving: requests are taken again without it")});
}

void ClusterView::ReleaseLeaving() {
  std::vector<WorkerId> leaving;
  for (const auto& [id, worker] : workers_) {
    const bool serves = phase_ == Phase::kServing && FindMember(id) != nullptr;
    if (worker.leaving && !serves) leaving.push_back(id);
  }
  for (const WorkerId id : leaving) {
    Remove(id, absl::UnavailableError("it was told to stop"), EpochEnd::kWorkerLeft);
    actions_.push_back(ReleaseWorker{id});
  }
}

void ClusterView::On(const EpochFailed& event) {
  if (layout_ == nullptr || event.epoch != layout_->epoch) return;
  EndEpoch(event.reason, EpochEnd::kBadResult);
}

void ClusterView::EndEpoch(const absl::Status& reason, EpochEnd why, bool refused) {
  ++epochs_ended_[static_cast<size_t>(why)];
  const std::shared_ptr<const ClusterLayout> ended = std::exchange(layout_, nullptr);
  const bool was_serving = phase_ == Phase::kServing;
  phase_ = Phase::kWaiting;
  closing_since_.reset();
  for (const ClusterLayout::Member& member : ended->members) {
    const auto it = workers_.find(member.id);
    if (it == workers_.end()) continue;
    it->second.ready = false;
    it->second.kv_bytes = 0;
    actions_.push_back(EndWorkerEpoch{member.id, ended->epoch, std::string(reason.message())});
  }
  if (was_serving && why != EpochEnd::kWorkerJoined) short_since_ = now_;
  if (was_serving) {
    const bool planned = why == EpochEnd::kWorkerLeft || why == EpochEnd::kWorkerJoined;
    actions_.push_back(StopServing{ended->epoch, reason, planned});
  } else {
    plan_delay_ = std::clamp(2 * plan_delay_, kPlanDelayFirst, kPlanDelayMax);
  }
  plan_not_before_ = now_ + plan_delay_;
  end_reason_ = std::string(reason.message());
  Report(end_reason_, refused);
}

void ClusterView::PlanIfPossible() {
  if (phase_ != Phase::kWaiting || now_ < plan_not_before_) return;
  const std::string device_class = ServingClass();
  const auto may_serve = [&](const auto& it) { return MayServe(it.second, device_class); };
  const auto joined = static_cast<int>(std::count_if(workers_.begin(), workers_.end(), may_serve));
  const int needed = WorkersNeeded();
  if (joined < needed) return Report(WaitingReason(joined));
  const std::vector<WorkerId> line = Line();
  if (static_cast<int>(line.size()) < needed) return;  // why was said when one of them failed
  if (no_plan_for_ != std::make_pair(line, needed)) {
    absl::StatusOr<Choice> choice = ChooseMost(line, needed);
    if (choice.ok()) return Assign(choice->ids, std::move(choice->plan));
    no_plan_for_ = {line, needed};
    refusal_ = std::string(choice.status().message());
  }
  if (joined < options_.workers_wanted) return Report(WaitingReason(joined, refusal_));
  const bool all = static_cast<int>(line.size()) >= options_.workers_wanted;
  Report(all ? refusal_ : absl::StrCat(end_reason_, kNoPlanForFewer, refusal_), /*refused=*/true);
}

absl::StatusOr<ClusterView::Choice> ClusterView::ChooseMost(const std::vector<WorkerId>& line,
                                                            int least) const {
  absl::Status refusal = absl::FailedPreconditionError("too few workers");
  const int most = std::min(static_cast<int>(line.size()), options_.workers_wanted);
  for (int count = most; count >= least; --count) {
    std::vector<WorkerId> ids = FirstOf(line, count);
    absl::StatusOr<Plan> plan = PlanFor(ids);
    if (plan.ok()) return Choice{std::move(ids), *std::move(plan)};
    if (count == most) refusal = plan.status();
  }
  return refusal;
}

int ClusterView::WorkersNeeded() const {
  const bool stay_away = short_since_ && now_ - *short_since_ >= options_.replace_wait;
  return stay_away && options_.workers_min > 0 ? options_.workers_min : options_.workers_wanted;
}

void ClusterView::Grow() {
  if (layout_ == nullptr || layout_->short_of == 0 || closing_since_) return;
  const int serving = static_cast<int>(layout_->members.size());
  const bool again = phase_ == Phase::kServing && now_ >= grow_again_;
  if (grown_to_ > 0 && !again) return;
  std::vector<WorkerId> line = Line();
  // Those that could not load would end what serves again and again.
  if (!again) std::erase_if(line, [this](WorkerId id) { return workers_.at(id).failed_loads > 0; });
  if (line == not_grown_for_) return;
  not_grown_for_ = line;
  const absl::StatusOr<Choice> choice = ChooseMost(line, serving + 1);
  if (!choice.ok()) return;
  const std::vector<PlannedWorker>& planned = choice->plan.workers;
  // It may leave some of them without a part.
  if (static_cast<int>(planned.size()) <= serving) return;
  const auto newcomer = std::find_if(planned.begin(), planned.end(), [&](const PlannedWorker& worker) {
    return FindMember(choice->ids[worker.inventory]) == nullptr;
  });
  const Worker& worker = workers_.at(choice->ids[newcomer->inventory]);
  grown_to_ = planned.size();
  EndEpoch(absl::UnavailableError(
               absl::StrCat("worker ", worker.info.inventory.name,
                            worker.failed_loads > 0 ? " is tried again: " : " has joined: ", planned.size(),
                            " workers serve from now on, where ", serving, " did")),
           EpochEnd::kWorkerJoined);
}

std::string ClusterView::WaitingReason(int joined, const std::string& refusal) const {
  const int apart = workers_joined() - joined;
  const bool fewer_may_serve =
      short_since_ && options_.workers_min > 0 && options_.workers_min < options_.workers_wanted;
  const std::string fewer = !refusal.empty()  ? absl::StrCat(kNoPlanForFewer, refusal)
                            : fewer_may_serve ? absl::StrCat(", ", options_.workers_min, " do after ",
                                                             InSeconds(options_.replace_wait))
                                              : "";
  return absl::StrCat(
      "waiting for workers: ", joined, " of ", options_.workers_wanted, " have joined",
      apart > 0 ? absl::StrCat(", and ", apart, " of another device class (--mix-devices lets all serve)")
                : "",
      fewer, end_reason_.empty() ? "" : absl::StrCat(" (", end_reason_, ")"));
}

std::string ClusterView::ServingClass() const {
  if (options_.mix_devices) return "";
  if (layout_ != nullptr) return DeviceClass(layout_->members[0].worker.inventory);
  if (!kernel_levels_.empty()) return kernel_levels_.begin()->first;
  std::map<std::string, int> counts;
  for (const auto& [id, worker] : workers_) ++counts[DeviceClass(worker.info.inventory)];
  std::string best;
  std::tuple<bool, bool, int> best_rank;  // enough of them, GPUs, how many
  for (const auto& [device_class, count] : counts) {
    const std::tuple<bool, bool, int> rank = {count >= options_.workers_wanted, device_class != "cpu", count};
    if (best.empty() || rank > best_rank) best_rank = rank, best = device_class;
  }
  return best;
}

bool ClusterView::MayServe(const Worker& worker, const std::string& device_class) const {
  return device_class.empty() || DeviceClass(worker.info.inventory) == device_class;
}

void ClusterView::TellApart() {
  const std::string device_class = ServingClass();
  for (auto& [id, worker] : workers_) {
    if (MayServe(worker, device_class) || std::exchange(worker.told_apart, true)) continue;
    actions_.push_back(Warn{
        absl::StrCat("worker ", worker.info.inventory.name, " (", DeviceClass(worker.info.inventory),
                     ") computes other bits than those that serve (", device_class,
                     ") and gets no part: --mix-devices on the coordinator lets them share a pipeline")});
  }
}

std::vector<WorkerId> ClusterView::Line() const {
  const std::string device_class = ServingClass();
  std::vector<std::tuple<int, bool, WorkerId>> line;
  for (const auto& [id, worker] : workers_) {
    if (worker.not_before > now_ || !MayServe(worker, device_class)) continue;
    line.emplace_back(worker.failed_loads, !worker.info.inventory.held.has_value(), id);
  }
  std::sort(line.begin(), line.end());
  std::vector<WorkerId> ids;
  ids.reserve(line.size());
  for (const auto& [failed_loads, holds_nothing, id] : line) ids.push_back(id);
  return ids;
}

std::vector<WorkerId> ClusterView::FirstOf(const std::vector<WorkerId>& line, int count) {
  std::vector<WorkerId> ids(line.begin(), line.begin() + count);
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::StatusOr<Plan> ClusterView::PlanFor(const std::vector<WorkerId>& ids) const {
  std::vector<WorkerInventory> inventories;
  inventories.reserve(ids.size());
  for (const WorkerId id : ids) inventories.push_back(workers_.at(id).info.inventory);
  std::vector<std::string> levels;
  for (const auto& [device_class, level] : kernel_levels_) levels.push_back(level);
  BW_ASSIGN_OR_RETURN(Plan plan, plan_(inventories, levels));
  if (const absl::Duration deadline = StepDeadline(plan); deadline > kStepDeadlineMax) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "a step of %d tokens may take %s at the %.3g tokens/s of this plan, workers wait %s at most: lower "
        "--step-tokens, or give --step-deadline-seconds",
        plan.step_tokens, InSeconds(deadline), plan.decode_tokens_per_second, InSeconds(kStepDeadlineMax)));
  }
  return plan;
}

void ClusterView::Assign(const std::vector<WorkerId>& ids, Plan plan) {
  no_plan_for_ = {};
  not_grown_for_.clear();
  auto layout = std::make_shared<ClusterLayout>();
  layout->epoch = {++last_epoch_};
  layout->step_deadline = StepDeadline(plan);
  layout->short_of = options_.workers_wanted - static_cast<int>(ids.size());
  for (const PlannedWorker& planned : plan.workers) {
    const WorkerId id = ids[planned.inventory];
    Worker& worker = workers_.at(id);
    worker.ready = false;
    worker.loading = {};
    worker.last_change = now_;
    // It makes room before it loads.
    if (!planned.keeps) worker.info.inventory.held.reset();
    ClusterLayout::Member member{.id = id,
                                 .worker = worker.info,
                                 .stage = planned.stage,
                                 .rank = planned.rank,
                                 .keeps = planned.keeps};
    member.worker.inventory.held.reset();  // or layouts would keep each other
    layout->members.push_back(std::move(member));
  }
  for (const std::string& warning : plan.warnings) actions_.push_back(Warn{warning});
  layout->other_bits = ComputesOtherBits(plan);
  layout->plan = std::move(plan);
  layout_ = last_layout_ = std::move(layout);
  phase_ = Phase::kLoading;
  loaded_percent_ = 0;
  TellApart();
  actions_.push_back(AssignLayout{layout_});
  Report(absl::StrCat("workers are loading the model (epoch ", last_epoch_, ")"));
}

absl::Duration ClusterView::StepDeadline(const Plan& plan) const {
  if (options_.step_deadline > absl::ZeroDuration()) return options_.step_deadline;
  // A full step takes no longer than its tokens one by one, and what drives take once; twice that covers a
  // machine that others use too.
  return std::max(kDefaultStepDeadline,
                  absl::Seconds(2 * (plan.step_tokens * plan.token_seconds + plan.drive_seconds)));
}

const ClusterLayout::Member* ClusterView::FindMember(WorkerId id) const {
  if (layout_ == nullptr) return nullptr;
  for (const ClusterLayout::Member& member : layout_->members) {
    if (member.id == id) return &member;
  }
  return nullptr;
}

const ClusterLayout::Member* ClusterView::FindMember(const std::string& name) const {
  if (layout_ == nullptr || name.empty()) return nullptr;
  for (const ClusterLayout::Member& member : layout_->members) {
    if (member.worker.inventory.name == name) return &member;
  }
  return nullptr;
}

void ClusterView::Report(std::string reason, bool refused) {
  if (reason == last_report_) return;
  last_report_ = reason;
  actions_.push_back(ReportWaiting{std::move(reason), refused});
}

}  // namespace bellwether
