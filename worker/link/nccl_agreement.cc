#include "worker/link/nccl_agreement.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr int kIdFloats = sizeof(nccl::UniqueId) / sizeof(float);

// The members as one of them sees them.
class Negotiation {
 public:
  Negotiation(const Assignment& assignment, const NcclMembers& members, const std::vector<Link*>& links)
      : assignment_(assignment),
        members_(members),
        links_(links),
        stage_first_(FlatIndex(assignment.layout, assignment.stage, 0) - members.first),
        ranks_(static_cast<int>(assignment.stage_layout().ranks.size())) {}

  absl::StatusOr<NcclAgreement> Run(const NcclLibrary* library);

 private:
  bool leads() const { return assignment_.rank == 0; }  // its stage
  bool first_stage() const { return assignment_.stage == members_.first_stage; }
  bool last_stage() const { return assignment_.stage + 1 == members_.end_stage; }

  absl::Status CollectVersions(std::vector<float>& versions);
  absl::StatusOr<std::vector<float>> Decide(const std::vector<float>& versions, const NcclLibrary* library);
  absl::Status PassDown(std::vector<float>& decision);

  absl::Status Send(int stage, int rank, MessageKind kind, absl::Span<const float> data);
  absl::Status Receive(int stage, int rank, MessageKind kind, absl::Span<float> data);
  MessageTag Tag(MessageKind kind, int stage, int rank, size_t floats) const {
    return {.epoch = assignment_.epoch,
            .kind = kind,
            .stage = stage,
            .rank = rank,
            .rows = 1,
            .cols = static_cast<int32_t>(floats)};
  }
  Link& LinkTo(int stage, int rank) const { return *links_[FlatIndex(assignment_.layout, stage, rank)]; }

  const Assignment& assignment_;
  const NcclMembers& members_;
  const std::vector<Link*>& links_;
  const int stage_first_;  // this stage's rank 0 among the members
  const int ranks_;        // of this stage
};

absl::Status Negotiation::Send(int stage, int rank, MessageKind kind, absl::Span<const float> data) {
  return LinkTo(stage, rank).Send(Tag(kind, assignment_.stage, assignment_.rank, data.size()), data);
}

absl::Status Negotiation::Receive(int stage, int rank, MessageKind kind, absl::Span<float> data) {
  return LinkTo(stage, rank).Receive(Tag(kind, stage, rank, data.size()), data);
}

// Of this stage and those behind it, to the stage before.
absl::Status Negotiation::CollectVersions(std::vector<float>& versions) {
  const absl::Span<float> all = absl::MakeSpan(versions);
  const int stage = assignment_.stage;
  if (!leads()) {
    return Send(stage, 0, MessageKind::kNcclVersions, all.subspan(stage_first_ + assignment_.rank, 1));
  }
  for (int rank = 1; rank < ranks_; ++rank) {
    BW_RETURN_IF_ERROR(Receive(stage, rank, MessageKind::kNcclVersions, all.subspan(stage_first_ + rank, 1)));
  }
  if (!last_stage()) {
    BW_RETURN_IF_ERROR(Receive(stage + 1, 0, MessageKind::kNcclVersions, all.subspan(stage_first_ + ranks_)));
  }
  if (first_stage()) return absl::OkStatus();
  return Send(stage - 1, 0, MessageKind::kNcclVersions, all.subspan(stage_first_));
}

// All versions, and the id unless they differ.
absl::StatusOr<std::vector<float>> Negotiation::Decide(const std::vector<float>& versions,
                                                       const NcclLibrary* library) {
  std::vector<float> decision = versions;
  decision.resize(versions.size() + kIdFloats, 0);
  const bool alike = std::all_of(versions.begin(), versions.end(), [&](float v) { return v == versions[0]; });
  if (!alike || library == nullptr) return decision;
  nccl::UniqueId id;
  BW_RETURN_IF_ERROR(library->StatusOf(library->call().get_unique_id(&id), "making an id", nullptr));
  std::memcpy(decision.data() + versions.size(), &id, sizeof(id));
  return decision;
}

absl::Status Negotiation::PassDown(std::vector<float>& decision) {
  const int stage = assignment_.stage;
  if (!leads()) return Receive(stage, 0, MessageKind::kNcclId, absl::MakeSpan(decision));
  if (!first_stage()) {
    BW_RETURN_IF_ERROR(Receive(stage - 1, 0, MessageKind::kNcclId, absl::MakeSpan(decision)));
  }
  if (!last_stage()) BW_RETURN_IF_ERROR(Send(stage + 1, 0, MessageKind::kNcclId, decision));
  for (int rank = 1; rank < ranks_; ++rank) {
    BW_RETURN_IF_ERROR(Send(stage, rank, MessageKind::kNcclId, decision));
  }
  return absl::OkStatus();
}

absl::StatusOr<NcclAgreement> Negotiation::Run(const NcclLibrary* library) {
  std::vector<float> versions(members_.size, 0);  // whole numbers below 2^24, exact as fp32
  if (library != nullptr) versions[stage_first_ + assignment_.rank] = static_cast<float>(library->version());
  BW_RETURN_IF_ERROR(CollectVersions(versions));
  std::vector<float> decision(versions.size() + kIdFloats);
  if (first_stage() && leads()) {
    BW_ASSIGN_OR_RETURN(decision, Decide(versions, library));
  }
  BW_RETURN_IF_ERROR(PassDown(decision));

  NcclAgreement agreement;
  bool alike = true;
  for (int i = 0; i < members_.size; ++i) {
    // What a peer says may be anything: a comparison is all that is done with it.
    const bool sane = decision[i] >= 0 && decision[i] < float{1 << 24};
    agreement.versions.push_back(sane ? static_cast<int>(decision[i]) : 0);
    alike = alike && agreement.versions[i] == agreement.versions[0];
  }
  if (!alike || agreement.versions[0] == 0) return agreement;
  std::memcpy(&agreement.id.emplace(), decision.data() + members_.size, sizeof(nccl::UniqueId));
  return agreement;
}

}  // namespace

NcclMembers MembersWith(const Assignment& assignment) {
  const Layout& layout = assignment.layout;
  const auto on_gpus = [&](int stage) {
    const std::vector<std::string>& levels = assignment.stage_kernel_levels;
    return absl::StartsWith(levels.empty() ? assignment.numeric.kernel_level : levels[stage], "cuda");
  };
  NcclMembers members{.first_stage = assignment.stage, .end_stage = assignment.stage};
  if (!on_gpus(assignment.stage)) return members;
  while (members.first_stage > 0 && on_gpus(members.first_stage - 1)) --members.first_stage;
  const auto stages = static_cast<int>(layout.stages.size());
  while (members.end_stage < stages && on_gpus(members.end_stage)) ++members.end_stage;
  members.first = FlatIndex(layout, members.first_stage, 0);
  for (int stage = members.first_stage; stage < members.end_stage; ++stage) {
    members.size += static_cast<int>(layout.stages[stage].ranks.size());
  }
  return members;
}

absl::StatusOr<NcclAgreement> AgreeOnNccl(const Assignment& assignment, const NcclMembers& members,
                                          const NcclLibrary* library, const std::vector<Link*>& links) {
  return Negotiation(assignment, members, links).Run(library);
}

}  // namespace bellwether
