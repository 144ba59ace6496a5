#include "worker/link/nccl_group.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"

namespace bellwether {
namespace {

// Where part `part` of [0, count) begins: parts are nearly equal and begin at multiples of 64 bytes.
int64_t PartBegin(int64_t count, int parts, int part) {
  constexpr int64_t kLine = 16;
  return part == parts ? count : count / kLine * part / parts * kLine;
}

// No part of `count` or fewer is longer.
int64_t PartFloatsMax(int64_t count, int parts) { return std::min(count, count / parts + 32); }

}  // namespace

NcclGroup::NcclGroup(Options options)
    : options_(std::move(options)), communicator_(*options_.communicator), ops_(*options_.ops) {
  BW_CHECK(0 <= rank() && rank() < size() && size() > 1);
  BW_CHECK_EQ(static_cast<int>(options_.links.size()), size());
  first_root_.push_back(0);
  for (const SliceRange& slices : options_.rank_slices) {
    const auto roots = static_cast<int>(SubtreeRoots(slices, options_.slices_total).size());
    first_root_.push_back(first_root_.back() + roots);
  }
}

absl::StatusOr<std::unique_ptr<NcclGroup>> NcclGroup::Create(Options options, const Limits& limits) {
  auto group = std::unique_ptr<NcclGroup>(new NcclGroup(std::move(options)));
  const int64_t flat = std::min(group->Roots() * limits.reduce_floats, kFlatFloatsMax);
  const int64_t scattered = group->Roots() * PartFloatsMax(limits.reduce_floats, group->size());
  group->received_floats_ = std::max({flat, scattered, limits.share_cols});
  absl::StatusOr<float*> received = group->ops_.Allocate(group->received_floats_);
  if (!received.ok()) return Annotate(received.status(), "messages between ranks");
  group->received_ = *received;
  return group;
}

absl::Status NcclGroup::AgreeOnTag(MessageTag tag, MessageKind kind) {
  if (tag.step == agreed_) return absl::OkStatus();
  tag.kind = kind;
  tag.stage = options_.stage;
  tag.rank = rank();
  for (int i = 0; i + 1 < size(); ++i) BW_RETURN_IF_ERROR(options_.links[Other(i)]->Send(tag, {}));
  for (int i = 0; i + 1 < size(); ++i) {
    tag.rank = Other(i);
    BW_RETURN_IF_ERROR(options_.links[tag.rank]->Receive(tag, {}));
  }
  agreed_ = tag.step;
  return absl::OkStatus();
}

absl::Status NcclGroup::Exchange() {
  absl::Status status = communicator_.Exchange(transfers_);
  transfers_.clear();
  return status;
}

absl::Status NcclGroup::AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) {
  if (!communicator_.connected()) return options_.fallback->AllReduce(tag, roots, out);
  const auto count = static_cast<int64_t>(out.size());
  BW_CHECK_EQ(count, static_cast<int64_t>(tag.rows) * tag.cols);
  BW_CHECK_EQ(static_cast<int64_t>(roots.size()), RootsOf(rank()) * count);
  BW_RETURN_IF_ERROR(AgreeOnTag(tag, MessageKind::kReduceRoots));
  return Roots() * count <= kFlatFloatsMax ? ReduceFlat(roots, out) : ReduceScattered(roots, out);
}

// Everyone sends its roots to everyone, itself included, and adds up all of them.
absl::Status NcclGroup::ReduceFlat(absl::Span<const float> roots, absl::Span<float> out) {
  const auto count = static_cast<int64_t>(out.size());
  BW_CHECK_GE(received_floats_, Roots() * count);
  for (int r = 0; r < size(); ++r) {
    Send(r, roots.data(), RootsOf(rank()) * count);
    Receive(r, received_ + first_root_[r] * count, RootsOf(r) * count);
  }
  BW_RETURN_IF_ERROR(Exchange());
  SumReceived(count, out.data());
  return absl::OkStatus();
}

// Rank r adds up part r of the elements and sends the sums to everyone.
absl::Status NcclGroup::ReduceScattered(absl::Span<const float> roots, absl::Span<float> out) {
  const auto count = static_cast<int64_t>(out.size());
  const auto begin = [&](int r) { return PartBegin(count, size(), r); };
  const auto length = [&](int r) { return begin(r + 1) - begin(r); };
  const int64_t own = length(rank());
  BW_CHECK_GE(received_floats_, Roots() * own);
  for (int r = 0; r < size(); ++r) {
    for (int j = 0; j < RootsOf(rank()); ++j) Send(r, roots.data() + j * count + begin(r), length(r));
    for (int j = 0; j < RootsOf(r); ++j) Receive(r, received_ + (first_root_[r] + j) * own, own);
  }
  BW_RETURN_IF_ERROR(Exchange());
  float* const sums = out.data() + begin(rank());
  if (own > 0) SumReceived(own, sums);
  for (int i = 0; i + 1 < size(); ++i) {
    Send(Other(i), sums, own);
    Receive(Other(i), out.data() + begin(Other(i)), length(Other(i)));
  }
  return Exchange();
}

// The roots in received_, `count` floats each.
void NcclGroup::SumReceived(int64_t count, float* out) {
  root_pointers_.clear();
  for (int root = 0; root < Roots(); ++root) root_pointers_.push_back(received_ + root * count);
  ops_.SumRoots(root_pointers_, count, out);
}

absl::Status NcclGroup::ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) {
  if (!communicator_.connected()) return options_.fallback->ShareRows(tag, owner, rows);
  const int64_t count = static_cast<int64_t>(owner.size()), cols = tag.cols;
  BW_CHECK_EQ(static_cast<int64_t>(rows.size()), count * cols);
  BW_CHECK(std::all_of(owner.begin(), owner.end(), [this](int r) { return 0 <= r && r < size(); }));
  BW_RETURN_IF_ERROR(AgreeOnTag(tag, MessageKind::kEmbeddingRows));
  if (rows.empty()) return absl::OkStatus();
  const int64_t block = received_floats_ / cols;
  BW_CHECK_GE(block, 1);
  for (int64_t begin = 0; begin < count; begin += block) {
    BW_RETURN_IF_ERROR(ShareBlock(owner.subspan(begin, block), cols, rows.data() + begin * cols));
  }
  return absl::OkStatus();
}

// Packs this rank's rows, so that each pair of ranks has one copy, and takes all rows from where they were
// received: ordered by owner.
absl::Status NcclGroup::ShareBlock(absl::Span<const int> owner, int64_t cols, float* rows) {
  const auto count = static_cast<int64_t>(owner.size());
  std::vector<int64_t> next(size() + 1, 0);  // where the next row of each owner goes
  for (const int r : owner) ++next[r + 1];
  for (int r = 0; r < size(); ++r) next[r + 1] += next[r];
  const std::vector<int64_t> first = next;
  own_picks_.clear();
  places_.clear();
  for (int64_t row = 0; row < count; ++row) {
    if (owner[row] == rank()) own_picks_.push_back(static_cast<int32_t>(row));
    places_.push_back(static_cast<int32_t>(next[owner[row]]++));
  }
  const auto part = [&](int r) { return received_ + first[r] * cols; };
  const auto floats = [&](int r) { return (first[r + 1] - first[r]) * cols; };
  ops_.PickRows({rows, count, cols}, own_picks_, cols,
                {part(rank()), static_cast<int64_t>(own_picks_.size()), cols});
  for (int i = 0; i + 1 < size(); ++i) {
    Send(Other(i), part(rank()), floats(rank()));
    Receive(Other(i), part(Other(i)), floats(Other(i)));
  }
  BW_RETURN_IF_ERROR(Exchange());
  ops_.PickRows({received_, count, cols}, places_, cols, {rows, count, cols});
  return absl::OkStatus();
}

// One copy a row and rank.
absl::Status NcclGroup::GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                                      absl::Span<float> data) {
  if (!communicator_.connected()) return options_.fallback->GatherColumns(tag, column_bounds, data);
  BW_CHECK_EQ(static_cast<int>(column_bounds.size()), size() + 1);
  const auto width = [&](int r) { return column_bounds[r + 1] - column_bounds[r]; };
  const int64_t row_floats = rank() == 0 ? column_bounds.back() : width(rank());
  BW_CHECK_EQ(static_cast<int64_t>(data.size()), tag.rows * row_floats);
  BW_RETURN_IF_ERROR(AgreeOnTag(tag, MessageKind::kLogits));
  for (int64_t row = 0; row < tag.rows; ++row) {
    float* const here = data.data() + row * row_floats;
    if (rank() > 0) {
      Send(0, here, row_floats);
      continue;
    }
    for (int r = 1; r < size(); ++r) Receive(r, here + column_bounds[r], width(r));
  }
  return Exchange();
}

void NcclGroup::Abort(const absl::Status& reason) {
  communicator_.Abort(reason);
  options_.fallback->Abort(reason);
  for (Link* link : options_.links) {
    if (link != nullptr) link->Abort(reason);
  }
}

}  // namespace bellwether
