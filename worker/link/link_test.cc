#include "worker/link/link.h"

#include <tuple>

#include "worker/link/loopback.h"
#include "worker/link/testing/link_contract.h"
#include "worker/link/testing/shm_pair.h"

namespace bellwether {
namespace {

Ends MakeLoopbackEnds(absl::Duration wait_limit) {
  LoopbackOptions options;
  options.wait_limit = wait_limit;
  Ends ends;
  std::tie(ends.first, ends.second) = MakeLoopbackLinks(options);
  return ends;
}

Ends MakeShmEnds(absl::Duration wait_limit, int spin_pauses) {
  Ends ends;
  std::tie(ends.first, ends.second) = MakeShmPair(wait_limit, spin_pauses);
  return ends;
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, LinkTest,
    testing::Values(LinkKind{"loopback", MakeLoopbackEnds},
                    LinkKind{"shm", [](absl::Duration limit) { return MakeShmEnds(limit, 1000); }},
                    LinkKind{"shm_without_spinning",
                             [](absl::Duration limit) { return MakeShmEnds(limit, 0); }}),
    [](const testing::TestParamInfo<LinkKind>& info) { return info.param.name; });

}  // namespace
}  // namespace bellwether
