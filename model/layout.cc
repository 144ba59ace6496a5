#include "model/layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr int kSlicesMax = 16;
constexpr int64_t kFfnUnit = 32;         // ffn slices begin at multiples of an activation group
constexpr int64_t kVocabularyUnit = 16;  // rows a packed matrix pads to: an even split wastes none

// Start of part `index` when `total` things are spread over `parts`.
int64_t EvenBound(int64_t total, int64_t index, int64_t parts) { return total * index / parts; }

int64_t VocabularyBound(const ModelConfig& config, int rank, int ranks) {
  const int64_t units = (config.vocab + kVocabularyUnit - 1) / kVocabularyUnit;
  return std::min<int64_t>(kVocabularyUnit * EvenBound(units, rank, ranks), config.vocab);
}

int64_t FfnBound(const ModelConfig& config, int slice) {
  const int64_t units = (config.ffn + kFfnUnit - 1) / kFfnUnit;
  return std::min<int64_t>(kFfnUnit * EvenBound(units, slice, SliceCount(config)), config.ffn);
}

bool IsValid(Range range, int64_t limit) {
  return 0 <= range.begin && range.begin <= range.end && range.end <= limit;
}

// The rows of a stage's ranks must follow each other and cover [0, vocab), or be empty if the stage has none.
absl::Status ValidateRows(const std::vector<RankLayout>& ranks, Range RankLayout::*member, int64_t vocab,
                          bool wanted, const std::string& what) {
  int64_t next = 0;
  for (const RankLayout& rank : ranks) {
    const Range rows = rank.*member;
    if (!IsValid(rows, vocab)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " ", rows.begin, "-", rows.end, " lie outside the vocabulary of ", vocab));
    }
    if (!wanted) {
      if (rows.size() == 0) continue;
      return absl::InvalidArgumentError(absl::StrCat(what, " in a stage that needs none"));
    }
    if (rows.begin != next) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " continue at ", rows.begin, " but the ranks before end at ", next));
    }
    next = rows.end;
  }
  if (wanted && next != vocab) {
    return absl::InvalidArgumentError(absl::StrCat(what, " end at ", next, " of ", vocab));
  }
  return absl::OkStatus();
}

absl::Status ValidateSlices(const std::vector<RankLayout>& ranks, int slices) {
  if (ranks.empty()) return absl::InvalidArgumentError("no ranks");
  int next = 0;
  for (const RankLayout& rank : ranks) {
    if (rank.slices.begin != next || rank.slices.end <= next || rank.slices.end > slices) {
      return absl::InvalidArgumentError(absl::StrCat("slices ", rank.slices.begin, "-", rank.slices.end,
                                                     " where ", next, " should begin, of ", slices));
    }
    next = rank.slices.end;
  }
  if (next != slices) return absl::InvalidArgumentError(absl::StrCat("slices end at ", next, " of ", slices));
  return absl::OkStatus();
}

}  // namespace

int SliceCount(const ModelConfig& config) { return std::min<int>(kSlicesMax, config.heads); }

Range SliceHeads(const ModelConfig& config, SliceRange range) {
  const int slices = SliceCount(config);
  BW_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= slices);
  return {EvenBound(config.heads, range.begin, slices), EvenBound(config.heads, range.end, slices)};
}

Range SliceKvHeads(const ModelConfig& config, SliceRange range) {
  const Range heads = SliceHeads(config, range);
  const int64_t sharing = config.heads / config.kv_heads;  // query heads that read one KV head
  if (heads.size() == 0) return {heads.begin / sharing, heads.begin / sharing};
  return {heads.begin / sharing, (heads.end - 1) / sharing + 1};
}

Range SliceFfn(const ModelConfig& config, SliceRange range) {
  BW_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= SliceCount(config));
  return {FfnBound(config, range.begin), FfnBound(config, range.end)};
}

std::vector<RankLayout> EvenRanks(const ModelConfig& config, int ranks, bool first_stage, bool last_stage) {
  const int slices = SliceCount(config);
  BW_CHECK(1 <= ranks && ranks <= slices);
  std::vector<RankLayout> result(ranks);
  for (int i = 0; i < ranks; ++i) {
    result[i].slices = {static_cast<int>(EvenBound(slices, i, ranks)),
                        static_cast<int>(EvenBound(slices, i + 1, ranks))};
    const Range rows = {VocabularyBound(config, i, ranks), VocabularyBound(config, i + 1, ranks)};
    if (first_stage) result[i].embedding_rows = rows;
    if (last_stage) result[i].head_rows = rows;
  }
  return result;
}

absl::StatusOr<Layout> EvenLayout(const ModelConfig& config, int stages, int ranks) {
  if (stages < 1 || stages > config.layers) {
    return absl::InvalidArgumentError(absl::StrCat("a model of ", config.layers, " layers splits into 1-",
                                                   config.layers, " stages, not ", stages));
  }
  const int slices = SliceCount(config);
  if (ranks < 1 || ranks > slices) {
    return absl::InvalidArgumentError(absl::StrCat("a model of ", config.heads, " heads splits into 1-",
                                                   slices, " tensor-parallel ranks, not ", ranks));
  }
  Layout layout;
  for (int i = 0; i < stages; ++i) {
    StageLayout stage;
    stage.layers = {EvenBound(config.layers, i, stages), EvenBound(config.layers, i + 1, stages)};
    stage.ranks = EvenRanks(config, ranks, /*first_stage=*/i == 0, /*last_stage=*/i == stages - 1);
    layout.stages.push_back(std::move(stage));
  }
  return layout;
}

int FlatIndex(const Layout& layout, int stage, int rank) {
  int index = rank;
  for (int before = 0; before < stage; ++before) {
    index += static_cast<int>(layout.stages[before].ranks.size());
  }
  return index;
}

absl::Status Validate(const Layout& layout, const ModelConfig& config) {
  if (layout.stages.empty()) return absl::InvalidArgumentError("layout: no stages");
  int64_t next_layer = 0;
  for (size_t i = 0; i < layout.stages.size(); ++i) {
    const StageLayout& stage = layout.stages[i];
    const std::string where = absl::StrCat("layout, stage ", i);
    if (stage.layers.begin != next_layer || stage.layers.end <= next_layer ||
        stage.layers.end > config.layers) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": layers ", stage.layers.begin, "-",
                                                     stage.layers.end, " where ", next_layer,
                                                     " should begin, of ", config.layers));
    }
    next_layer = stage.layers.end;
    const bool last = i + 1 == layout.stages.size();
    BW_RETURN_IF_ERROR(Annotate(ValidateSlices(stage.ranks, SliceCount(config)), where));
    BW_RETURN_IF_ERROR(Annotate(ValidateRows(stage.ranks, &RankLayout::embedding_rows, config.vocab,
                                             /*wanted=*/i == 0, "embedding rows"),
                                where));
    BW_RETURN_IF_ERROR(Annotate(
        ValidateRows(stage.ranks, &RankLayout::head_rows, config.vocab, /*wanted=*/last, "head rows"),
        where));
  }
  if (next_layer != config.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: layers end at ", next_layer, " of ", config.layers));
  }
  return absl::OkStatus();
}

std::string Describe(const Layout& layout) {
  std::string text = absl::StrCat(layout.stages.size(), layout.stages.size() == 1 ? " stage:" : " stages:");
  for (size_t i = 0; i < layout.stages.size(); ++i) {
    const StageLayout& stage = layout.stages[i];
    absl::StrAppend(&text, i == 0 ? "" : ",", " layers ", stage.layers.begin, "-", stage.layers.end - 1,
                    " x ", stage.ranks.size(), stage.ranks.size() == 1 ? " rank" : " ranks");
  }
  return text;
}

}  // namespace bellwether
