#include "coordinator/held_layout.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/check.h"

namespace bellwether {
namespace {

constexpr size_t kNobody = static_cast<size_t>(-1);

class Places {
 public:
  Places(absl::Span<const WorkerInventory> workers, const Layout& layout)
      : workers_(workers), taken_(workers.size(), false) {
    for (const StageLayout& stage : layout.stages) stages_.emplace_back(stage.ranks.size(), kNobody);
  }

  void KeepHolders(Quantize quantize, const Layout& layout);
  void FillUp();
  std::vector<std::vector<size_t>> Take() { return std::move(stages_); }

 private:
  void Fill(std::vector<size_t>& stage);
  // The host of the stage's first worker; for a stage without any the first one with enough workers left, or
  // else with any.
  std::string HostFor(const std::vector<size_t>& stage) const;

  const absl::Span<const WorkerInventory> workers_;
  std::vector<bool> taken_;
  std::vector<std::vector<size_t>> stages_;
};

void Places::KeepHolders(Quantize quantize, const Layout& layout) {
  for (size_t i = 0; i < workers_.size(); ++i) {
    const auto& held = workers_[i].held;
    if (!held || held->stage >= static_cast<int>(stages_.size())) continue;
    std::vector<size_t>& stage = stages_[held->stage];
    if (held->rank >= static_cast<int>(stage.size()) || stage[held->rank] != kNobody) continue;
    if (!HoldsPart(workers_[i], quantize, layout, held->stage, held->rank)) continue;
    stage[held->rank] = i;
    taken_[i] = true;
  }
}

void Places::FillUp() {
  for (std::vector<size_t>& stage : stages_) {
    if (std::find(stage.begin(), stage.end(), kNobody) != stage.end()) Fill(stage);
  }
}

void Places::Fill(std::vector<size_t>& stage) {
  const std::string host = HostFor(stage);
  for (const bool same_host : {true, false}) {
    size_t worker = 0;
    for (size_t& place : stage) {
      if (place != kNobody) continue;
      while (worker < workers_.size() && (taken_[worker] || (same_host && workers_[worker].host != host)))
        ++worker;
      if (worker == workers_.size()) break;
      taken_[worker] = true;
      place = worker;
    }
  }
}

std::string Places::HostFor(const std::vector<size_t>& stage) const {
  for (const size_t worker : stage) {
    if (worker != kNobody) return workers_[worker].host;
  }
  std::map<std::string, size_t> left;
  std::string any;
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (taken_[i]) continue;
    if (++left[workers_[i].host] == stage.size()) return workers_[i].host;
    if (any.empty()) any = workers_[i].host;
  }
  return any;
}

}  // namespace

bool HoldsPart(const WorkerInventory& worker, Quantize quantize, const Layout& layout, int stage, int rank) {
  if (!worker.held || worker.held->quantize != quantize) return false;
  const HeldPart& held = *worker.held;
  return held.stage_layout().layers == layout.stages[stage].layers &&
         held.stage_layout().ranks[held.rank] == layout.stages[stage].ranks[rank];
}

const Layout* MostHeldLayout(absl::Span<const WorkerInventory> workers, Quantize quantize) {
  std::vector<std::pair<const Layout*, int>> counts;
  for (const WorkerInventory& worker : workers) {
    if (!worker.held || worker.held->quantize != quantize) continue;
    const Layout* layout = worker.held->layout.get();
    auto known = std::find_if(counts.begin(), counts.end(), [layout](const auto& it) {
      return it.first == layout || *it.first == *layout;
    });
    if (known == counts.end()) known = counts.insert(known, {layout, 0});
    ++known->second;
  }
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? nullptr : most->first;
}

std::vector<std::vector<size_t>> AssignHolders(absl::Span<const WorkerInventory> workers, Quantize quantize,
                                               const Layout& layout) {
  BW_CHECK_GE(workers.size(), static_cast<size_t>(layout.workers()));
  Places places(workers, layout);
  places.KeepHolders(quantize, layout);
  places.FillUp();
  return places.Take();
}

}  // namespace bellwether
