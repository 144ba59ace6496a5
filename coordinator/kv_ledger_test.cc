#include "coordinator/kv_ledger.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(KvLedgerTest, AllocatesAllOrNothing) {
  KvLedger ledger(4);
  std::vector<KvBlockId> a, b;
  EXPECT_TRUE(ledger.Allocate(3, &a));
  EXPECT_THAT(a, ElementsAre(0, 1, 2));
  EXPECT_FALSE(ledger.Allocate(2, &b));
  EXPECT_THAT(b, IsEmpty());
  EXPECT_EQ(ledger.available(), 1);
  EXPECT_TRUE(ledger.Allocate(0, &b));
  EXPECT_TRUE(ledger.Allocate(1, &b));
  EXPECT_THAT(b, ElementsAre(3));
  EXPECT_EQ(ledger.used(), 4);
}

TEST(KvLedgerTest, SharedBlocksLiveUntilTheLastHolderGoes) {
  KvLedger ledger(4);
  std::vector<KvBlockId> owner, fork;
  ASSERT_TRUE(ledger.Allocate(2, &owner));
  ledger.Share(absl::MakeSpan(owner).subspan(0, 1), &fork);
  ASSERT_TRUE(ledger.Allocate(1, &fork));
  EXPECT_THAT(fork, ElementsAre(0, 2));
  EXPECT_EQ(ledger.holders(0), 2);
  ledger.Release(&owner);
  EXPECT_THAT(owner, IsEmpty());
  EXPECT_EQ(ledger.holders(0), 1);
  EXPECT_EQ(ledger.holders(1), 0);
  EXPECT_EQ(ledger.used(), 2);
  ledger.Release(&fork);
  EXPECT_EQ(ledger.used(), 0);
}

TEST(KvLedgerTest, ReleasedBlocksAreTakenInTheirOldOrder) {
  KvLedger ledger(8);
  std::vector<KvBlockId> a, b;
  ASSERT_TRUE(ledger.Allocate(3, &a));
  ledger.Release(&a);
  ASSERT_TRUE(ledger.Allocate(3, &b));
  EXPECT_THAT(b, ElementsAre(0, 1, 2));
}

TEST(KvLedgerDeathTest, ReleasingTwiceIsABrokenInvariant) {
  KvLedger ledger(2);
  std::vector<KvBlockId> table;
  ASSERT_TRUE(ledger.Allocate(1, &table));
  std::vector<KvBlockId> copy = table;
  ledger.Release(&table);
  EXPECT_DEATH(ledger.Release(&copy), "broken invariant");
}

}  // namespace
}  // namespace bellwether
