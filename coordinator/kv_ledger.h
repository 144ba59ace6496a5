#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"

namespace bellwether {

constexpr int32_t KvBlocksFor(int32_t positions) { return (positions + kKvBlockTokens - 1) / kKvBlockTokens; }

// Who holds which block of the KV cache. Blocks are reference-counted: sequences with the same prompt share
// its full blocks. Deterministic: the same calls give the same blocks.
class KvLedger {
 public:
  explicit KvLedger(int32_t blocks);

  int32_t total() const { return static_cast<int32_t>(holders_.size()); }
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return total() - available(); }

  // Appends `count` blocks with one holder each to `table`. False, and nothing is changed, if fewer are
  // available.
  [[nodiscard]] bool Allocate(int32_t count, std::vector<KvBlockId>* table);
  // One more holder for each of these blocks, which are in use; appends them to `table`.
  void Share(absl::Span<const KvBlockId> blocks, std::vector<KvBlockId>* table);
  // One holder less for each block; those without holders become available. Clears `table`.
  void Release(std::vector<KvBlockId>* table);

  int32_t holders(KvBlockId block) const { return holders_[block]; }

 private:
  std::vector<int32_t> holders_;  // by block
  std::vector<KvBlockId> free_;   // taken from the back
};

}  // namespace bellwether
