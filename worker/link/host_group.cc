#include "worker/link/host_group.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "kernels/kernels.h"

namespace bellwether {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
// Up to here everyone sends all its roots to everyone: one wait instead of two.
constexpr int64_t kFlatBytesMax = 64 << 10;
// What a rank sends to one peer before it receives from it. A peer can be one phase behind, so two of these
// must fit into a link's FIFO.
constexpr int64_t kChunkBytes = 64 << 10;
static_assert(2 * kChunkBytes <= kLinkFifoBytes && kFlatBytesMax <= kLinkFifoBytes);

std::vector<SliceRange> RootsOfAll(const std::vector<SliceRange>& rank_slices, int slices_total) {
  std::vector<SliceRange> all;
  for (const SliceRange& slices : rank_slices) {
    const std::vector<SliceRange> roots = SubtreeRoots(slices, slices_total);
    all.insert(all.end(), roots.begin(), roots.end());
  }
  return all;
}

// A sum of two numbers has the same bits on every level.
TreeSum::AddFunction BestAdd() {
  const absl::StatusOr<const kernels::KernelTable*> best =
      kernels::GetKernels(kernels::AvailableKernelLevels().back());
  BW_CHECK(best.ok());
  return (*best)->add;
}

// Where part `part` of [0, count) begins: parts are nearly equal and begin at whole cache lines.
int64_t PartBegin(int64_t count, int parts, int part) {
  constexpr int64_t kLine = 16;
  return part == parts ? count : count / kLine * part / parts * kLine;
}

}  // namespace

HostGroup::HostGroup(Options options)
    : options_(std::move(options)),
      tree_sum_(RootsOfAll(options_.rank_slices, options_.slices_total), options_.slices_total, BestAdd()) {
  BW_CHECK(0 <= rank() && rank() < size());
  BW_CHECK(size() == 1 || static_cast<int>(options_.links.size()) == size());
  first_root_.push_back(0);
  for (const SliceRange& slices : options_.rank_slices) {
    BW_CHECK_GE(slices.size(), 1);
    const int roots = static_cast<int>(SubtreeRoots(slices, options_.slices_total).size());
    first_root_.push_back(first_root_.back() + roots);
    roots_max_ = std::max(roots_max_, roots);
  }
  root_pointers_.resize(first_root_.back());
  if (size() > 1) {
    const int64_t root_floats = std::max(kFlatBytesMax, kChunkBytes) / kFloatBytes / roots_max_;
    scratch_.resize(
        std::max({first_root_.back() * root_floats, kChunkBytes / kFloatBytes, options_.cols_max}));
  }
}

MessageTag HostGroup::TagOf(MessageTag tag, MessageKind kind, int sender) const {
  tag.kind = kind;
  tag.stage = options_.stage;
  tag.rank = sender;
  return tag;
}

absl::Status HostGroup::AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) {
  const int64_t count = static_cast<int64_t>(out.size());
  BW_CHECK_EQ(count, static_cast<int64_t>(tag.rows) * tag.cols);
  BW_CHECK_EQ(static_cast<int64_t>(roots.size()), RootsOf(rank()) * count);
  const int64_t root_set_bytes = roots_max_ * count * kFloatBytes;
  if (root_set_bytes <= kFlatBytesMax || size() == 1) return ReduceFlat(tag, roots, out);
  return ReduceScattered(tag, roots, out);
}

// Everyone sends its roots to everyone and adds up all of them.
absl::Status HostGroup::ReduceFlat(const MessageTag& tag, absl::Span<const float> roots,
                                   absl::Span<float> out) {
  const int64_t count = static_cast<int64_t>(out.size());
  for (int i = 0; i + 1 < size(); ++i) {
    BW_RETURN_IF_ERROR(options_.links[Other(i)]->Send(TagOf(tag, MessageKind::kReduceRoots, rank()), roots));
  }
  float* received = scratch_.data();
  for (int r = 0; r < size(); ++r) {
    if (r == rank()) {
      for (int j = 0; j < RootsOf(r); ++j) root_pointers_[first_root_[r] + j] = roots.data() + j * count;
      continue;
    }
    float* here = received + first_root_[r] * count;
    BW_RETURN_IF_ERROR(options_.links[r]->Receive(TagOf(tag, MessageKind::kReduceRoots, r),
                                                  absl::MakeSpan(here, RootsOf(r) * count)));
    for (int j = 0; j < RootsOf(r); ++j) root_pointers_[first_root_[r] + j] = here + j * count;
  }
  tree_sum_.Sum(root_pointers_, count, out.data());
  return absl::OkStatus();
}

// Rank r adds up part r of the elements and sends the sums to everyone. In rounds, so that no more than
// kChunkBytes go to a peer before something is received from it.
absl::Status HostGroup::ReduceScattered(const MessageTag& tag, absl::Span<const float> roots,
                                        absl::Span<float> out) {
  const int64_t count = static_cast<int64_t>(out.size());
  const int64_t chunk = kChunkBytes / (roots_max_ * kFloatBytes);
  auto chunk_of = [&](int rank, int64_t round) {
    const int64_t begin = PartBegin(count, size(), rank) + round * chunk,
                  end = PartBegin(count, size(), rank + 1);
    return std::pair(std::min(begin, end), std::min(begin + chunk, end));
  };
  int64_t part_max = 0;
  for (int r = 0; r < size(); ++r) {
    part_max = std::max(part_max, PartBegin(count, size(), r + 1) - PartBegin(count, size(), r));
  }
  for (int64_t round = 0; round * chunk < part_max; ++round) {
    for (int i = 0; i + 1 < size(); ++i) {
      const auto [begin, end] = chunk_of(Other(i), round);
      for (int j = 0; j < RootsOf(rank()) && begin < end; ++j) {
        BW_RETURN_IF_ERROR(options_.links[Other(i)]->Send(TagOf(tag, MessageKind::kReduceRoots, rank()),
                                                          roots.subspan(j * count + begin, end - begin)));
      }
    }
    if (const auto [begin, end] = chunk_of(rank(), round); begin < end) {
      const absl::Span<float> sums = out.subspan(begin, end - begin);
      BW_RETURN_IF_ERROR(ReduceChunk(tag, roots.data() + begin, count, sums));
      for (int i = 0; i + 1 < size(); ++i) {
        BW_RETURN_IF_ERROR(
            options_.links[Other(i)]->Send(TagOf(tag, MessageKind::kReduceResult, rank()), sums));
      }
    }
    for (int i = 0; i + 1 < size(); ++i) {
      const auto [begin, end] = chunk_of(Other(i), round);
      if (begin == end) continue;
      BW_RETURN_IF_ERROR(options_.links[Other(i)]->Receive(TagOf(tag, MessageKind::kReduceResult, Other(i)),
                                                           out.subspan(begin, end - begin)));
    }
  }
  return absl::OkStatus();
}

// Receives everyone's roots of one chunk of this rank's part and adds them up. own_roots: the chunk in this
// rank's first root; the next root is root_stride floats on.
absl::Status HostGroup::ReduceChunk(const MessageTag& tag, const float* own_roots, int64_t root_stride,
                                    absl::Span<float> out) {
  const int64_t length = static_cast<int64_t>(out.size());
  float* received = scratch_.data();
  for (int r = 0; r < size(); ++r) {
    for (int j = 0; j < RootsOf(r); ++j) {
      const int root = first_root_[r] + j;
      root_pointers_[root] = r == rank() ? own_roots + j * root_stride : received + root * length;
      if (r == rank()) continue;
      BW_RETURN_IF_ERROR(options_.links[r]->Receive(TagOf(tag, MessageKind::kReduceRoots, r),
                                                    absl::MakeSpan(received + root * length, length)));
    }
  }
  tree_sum_.Sum(root_pointers_, length, out.data());
  return absl::OkStatus();
}

absl::Status HostGroup::ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) {
  const int64_t count = static_cast<int64_t>(owner.size()), cols = tag.cols;
  BW_CHECK_EQ(static_cast<int64_t>(rows.size()), count * cols);
  BW_CHECK_GE(options_.cols_max, cols);
  BW_CHECK(std::all_of(owner.begin(), owner.end(), [this](int r) { return 0 <= r && r < size(); }));
  if (size() == 1 || rows.empty()) return absl::OkStatus();
  // Blocks of rows that fit into a chunk (or one row that does not: then nobody else sends in its block).
  const int64_t block = std::max<int64_t>(1, kChunkBytes / (cols * kFloatBytes));
  float* packed = scratch_.data();
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t end = std::min(begin + block, count);
    // A rank's rows of a block travel as one message.
    auto each_row_of = [&](int r, auto visit) {
      int64_t floats = 0;
      for (int64_t row = begin; row < end; ++row) {
        if (owner[row] != r) continue;
        visit(rows.data() + row * cols, packed + floats);
        floats += cols;
      }
      return floats;
    };
    const int64_t own =
        each_row_of(rank(), [cols](float* row, float* place) { std::copy_n(row, cols, place); });
    for (int i = 0; i + 1 < size() && own > 0; ++i) {
      BW_RETURN_IF_ERROR(options_.links[Other(i)]->Send(TagOf(tag, MessageKind::kEmbeddingRows, rank()),
                                                        absl::MakeConstSpan(packed, own)));
    }
    for (int i = 0; i + 1 < size(); ++i) {
      const int r = Other(i);
      const int64_t floats = each_row_of(r, [](float*, float*) {});
      if (floats == 0) continue;
      BW_RETURN_IF_ERROR(options_.links[r]->Receive(TagOf(tag, MessageKind::kEmbeddingRows, r),
                                                    absl::MakeSpan(packed, floats)));
      each_row_of(r, [cols](float* row, float* place) { std::copy_n(place, cols, row); });
    }
  }
  return absl::OkStatus();
}

// One message a row and rank: data flows to rank 0 only, so nobody waits for anybody in a circle.
absl::Status HostGroup::GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                                      absl::Span<float> data) {
  BW_CHECK_EQ(static_cast<int>(column_bounds.size()), size() + 1);
  auto width = [&](int r) { return column_bounds[r + 1] - column_bounds[r]; };
  const int64_t row_floats = rank() == 0 ? column_bounds.back() : width(rank());
  BW_CHECK_EQ(static_cast<int64_t>(data.size()), tag.rows * row_floats);
  for (int64_t row = 0; row < tag.rows; ++row) {
    const absl::Span<float> here = data.subspan(row * row_floats, row_floats);
    if (rank() > 0) {
      if (!here.empty()) {
        BW_RETURN_IF_ERROR(options_.links[0]->Send(TagOf(tag, MessageKind::kLogits, rank()), here));
      }
      continue;
    }
    for (int r = 1; r < size(); ++r) {
      if (width(r) == 0) continue;
      BW_RETURN_IF_ERROR(options_.links[r]->Receive(TagOf(tag, MessageKind::kLogits, r),
                                                    here.subspan(column_bounds[r], width(r))));
    }
  }
  return absl::OkStatus();
}

void HostGroup::Abort(const absl::Status& reason) {
  for (const std::unique_ptr<Link>& link : options_.links) {
    if (link) link->Abort(reason);
  }
}

}  // namespace bellwether
