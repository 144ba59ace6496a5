#include "coordinator/kv_ledger.h"

#include <algorithm>

#include "common/check.h"

namespace bellwether {

KvLedger::KvLedger(int32_t blocks, bool keeps)
    : keeps_(keeps), holders_(blocks, 0), content_(blocks, nullptr), let_go_(blocks, 0) {
  free_.reserve(blocks);
  for (KvBlockId block = blocks; block-- > 0;) free_.push_back(block);
}

bool KvLedger::Allocate(int32_t count, std::vector<KvBlockId>* table) {
  BW_CHECK_GE(count, 0);
  if (count > available()) return false;
  for (int32_t i = 0; i < count; ++i) {
    if (free_.empty()) {
      const auto oldest = kept_.begin();
      Forget(oldest->second);
      free_.push_back(oldest->second);
      kept_.erase(oldest);
    }
    const KvBlockId block = free_.back();
    free_.pop_back();
    BW_CHECK_EQ(holders_[block], 0);
    holders_[block] = 1;
    table->push_back(block);
  }
  return true;
}

void KvLedger::Share(absl::Span<const KvBlockId> blocks, std::vector<KvBlockId>* table) {
  for (const KvBlockId block : blocks) {
    if (holders_[block] == 0) {
      const size_t erased = kept_.erase(let_go_[block]);
      BW_CHECK_EQ(erased, 1);
    }
    ++holders_[block];
    table->push_back(block);
  }
}

// The last first: so a block is let go before those it follows, and its place is taken before theirs.
void KvLedger::Release(std::vector<KvBlockId>* table) {
  for (; !table->empty(); table->pop_back()) {
    const KvBlockId block = table->back();
    BW_CHECK(holders_[block] > 0);
    if (--holders_[block] > 0) continue;
    if (keeps_ && content_[block] != nullptr) {
      let_go_[block] = ++releases_;
      kept_.emplace(releases_, block);
    } else {
      Forget(block);
      free_.push_back(block);
    }
  }
}

PrefixId KvLedger::Remember(KvBlockId block, PrefixId before, absl::Span<const TokenId> tokens, StepId step) {
  BW_CHECK(holders_[block] > 0 && content_[block] == nullptr);
  const auto [at, added] = known_.try_emplace(ContentOf(before, tokens));
  if (added) {
    at->second = {.prefix = ++last_prefix_, .block = block, .step = step};
    content_[block] = &at->first;
  }
  return at->second.prefix;
}

std::optional<KvLedger::Known> KvLedger::Find(PrefixId before, absl::Span<const TokenId> tokens) const {
  const auto found = known_.find(ContentOf(before, tokens));
  if (found == known_.end()) return std::nullopt;
  return found->second;
}

KvLedger::Content KvLedger::ContentOf(PrefixId before, absl::Span<const TokenId> tokens) {
  BW_CHECK_EQ(static_cast<int>(tokens.size()), kKvBlockTokens);
  Content content{before, {}};
  std::copy(tokens.begin(), tokens.end(), content.second.begin());
  return content;
}

void KvLedger::Forget(KvBlockId block) {
  if (content_[block] == nullptr) return;
  const auto at = known_.find(*content_[block]);
  BW_CHECK(at != known_.end());
  known_.erase(at);
  content_[block] = nullptr;
}

}  // namespace bellwether
