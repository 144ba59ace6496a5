#include "coordinator/kv_ledger.h"

#include "common/check.h"

namespace bellwether {

KvLedger::KvLedger(int32_t blocks) : holders_(blocks, 0) {
  free_.reserve(blocks);
  for (KvBlockId block = blocks; block-- > 0;) free_.push_back(block);
}

bool KvLedger::Allocate(int32_t count, std::vector<KvBlockId>* table) {
  BW_CHECK_GE(count, 0);
  if (count > available()) return false;
  for (int32_t i = 0; i < count; ++i) {
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
    BW_CHECK(holders_[block] > 0);
    ++holders_[block];
    table->push_back(block);
  }
}

void KvLedger::Release(std::vector<KvBlockId>* table) {
  for (; !table->empty(); table->pop_back()) {
    const KvBlockId block = table->back();
    BW_CHECK(holders_[block] > 0);
    if (--holders_[block] == 0) free_.push_back(block);
  }
}

}  // namespace bellwether
