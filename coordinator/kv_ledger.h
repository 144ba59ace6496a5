#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"

namespace bellwether {

constexpr int32_t KvBlocksFor(int32_t positions) { return (positions + kKvBlockTokens - 1) / kKvBlockTokens; }

// The tokens from a sequence's begin to the end of a full block, by a number that is never given twice.
using PrefixId = uint64_t;
// The empty prefix, of those who share blocks with each other and nobody else.
constexpr PrefixId EmptyPrefix(uint64_t sharers) { return sharers | uint64_t{1} << 63; }

// Who holds which block of the KV cache, and what full blocks hold. Blocks are reference-counted: sequences
// that begin with the same tokens share full blocks, which have the same bits whoever computed them
// (docs/architecture.md, "Numbers"). A block whose content is known is kept after its last holder, until its
// place is needed: the one that was let go longest ago goes first. Deterministic: the same calls give the
// same blocks.
class KvLedger {
 public:
  // `keeps`: known blocks without holders. Else they are forgotten at once, and shared between those alone
  // that hold them at the same time.
  explicit KvLedger(int32_t blocks, bool keeps = true);

  int32_t total() const { return static_cast<int32_t>(holders_.size()); }
  // Without holders: free, or kept.
  int32_t available() const { return static_cast<int32_t>(free_.size() + kept_.size()); }
  int32_t used() const { return total() - available(); }
  int32_t kept() const { return static_cast<int32_t>(kept_.size()); }

  // Appends `count` blocks with one holder each to `table`. False, and nothing is changed, if fewer are
  // available.
  [[nodiscard]] bool Allocate(int32_t count, std::vector<KvBlockId>* table);
  // One more holder for each of these blocks, which are in use or kept; appends them to `table`.
  void Share(absl::Span<const KvBlockId> blocks, std::vector<KvBlockId>* table);
  // One holder less for each block, the last of a table first; those without holders become available. Clears
  // `table`.
  void Release(std::vector<KvBlockId>* table);

  // A block that is in use holds, from `step` on, the kKvBlockTokens `tokens` that follow `before`. The
  // prefix that they make. Where another block is known to hold the same, that one stays the known one.
  PrefixId Remember(KvBlockId block, PrefixId before, absl::Span<const TokenId> tokens, StepId step);
  struct Known {
    PrefixId prefix = 0;
    KvBlockId block = -1;
    StepId step;
  };
  // The block that holds `tokens` after `before`.
  std::optional<Known> Find(PrefixId before, absl::Span<const TokenId> tokens) const;

  int32_t holders(KvBlockId block) const { return holders_[block]; }

 private:
  using Content = std::pair<PrefixId, std::array<TokenId, kKvBlockTokens>>;

  static Content ContentOf(PrefixId before, absl::Span<const TokenId> tokens);
  void Forget(KvBlockId block);

  bool keeps_;
  std::vector<int32_t> holders_;  // by block
  std::vector<KvBlockId> free_;   // taken from the back
  // Tokens are compared, not hashes of them: a wrong block would be a wrong answer.
  absl::node_hash_map<Content, Known> known_;
  std::vector<const Content*> content_;  // by block: its key in known_, or null
  std::map<uint64_t, KvBlockId> kept_;   // by when they were let go
  std::vector<uint64_t> let_go_;         // by block
  uint64_t releases_ = 0;
  PrefixId last_prefix_ = 0;
};

}  // namespace bellwether
