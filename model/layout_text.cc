#include "model/layout_text.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace bellwether {
namespace {

absl::Status Wrong(absl::string_view text, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("layout \"", text, "\": ", what));
}

bool ParsePositive(absl::string_view text, int* value) { return absl::SimpleAtoi(text, value) && *value > 0; }

// Slices of each rank: shares as given, or so many even ones.
absl::StatusOr<std::vector<SliceRange>> ParseRanks(const ModelConfig& config, absl::string_view text) {
  std::vector<SliceRange> ranges;
  const std::vector<absl::string_view> shares = absl::StrSplit(text, '+');
  const int slices = SliceCount(config);
  if (shares.size() == 1) {
    int ranks = 0;
    if (!ParsePositive(text, &ranks)) return Wrong(text, "expected a number of ranks");
    if (ranks > slices)
      return Wrong(text, absl::StrCat(ranks, " ranks, but the model has ", slices, " slices"));
    for (const RankLayout& rank : EvenRanks(config, ranks, false, false)) ranges.push_back(rank.slices);
    return ranges;
  }
  int begin = 0;
  for (const absl::string_view share : shares) {
    int size = 0;
    if (!ParsePositive(share, &size) || size > slices - begin) {
      return Wrong(text, absl::StrCat("expected shares that add up to the model's ", slices, " slices"));
    }
    ranges.push_back({begin, begin + size});
    begin += size;
  }
  if (begin != slices)
    return Wrong(text, absl::StrCat("covers ", begin, " of the model's ", slices, " slices"));
  return ranges;
}

}  // namespace

absl::StatusOr<Layout> ParseLayout(const ModelConfig& config, std::string_view given) {
  const absl::string_view text(given.data(), given.size());
  const std::vector<absl::string_view> stages = absl::StrSplit(text, ',');
  Layout layout;
  int64_t layer = 0;
  for (size_t i = 0; i < stages.size(); ++i) {
    const std::vector<absl::string_view> parts = absl::StrSplit(stages[i], 'x');
    int layers = 0;
    if (parts.size() != 2 || !ParsePositive(parts[0], &layers)) {
      return Wrong(text, absl::StrCat("expected LAYERSxRANKS instead of \"", stages[i], "\""));
    }
    BW_ASSIGN_OR_RETURN(const std::vector<SliceRange> slices, ParseRanks(config, parts[1]));
    StageLayout stage{
        .layers = {layer, layer + layers},
        .ranks = EvenRanks(config, static_cast<int>(slices.size()), i == 0, i + 1 == stages.size())};
    for (size_t rank = 0; rank < slices.size(); ++rank) stage.ranks[rank].slices = slices[rank];
    layout.stages.push_back(std::move(stage));
    layer += layers;
  }
  if (layer != config.layers) {
    return Wrong(text, absl::StrCat("covers ", layer, " layers, the model has ", config.layers));
  }
  BW_RETURN_IF_ERROR(Validate(layout, config));
  return layout;
}

}  // namespace bellwether
