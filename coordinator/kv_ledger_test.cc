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

constexpr PrefixId kEmpty = EmptyPrefix(0);

std::vector<TokenId> Tokens(TokenId token) { return std::vector<TokenId>(kKvBlockTokens, token); }

TEST(KvLedgerTest, ABlockIsFoundByAllTokensUpToItsEnd) {
  KvLedger ledger(8);
  std::vector<KvBlockId> table;
  ASSERT_TRUE(ledger.Allocate(3, &table));
  const PrefixId one = ledger.Remember(table[0], kEmpty, Tokens(1), StepId{4});
  const PrefixId two = ledger.Remember(table[1], one, Tokens(2), StepId{5});
  EXPECT_NE(one, two);
  EXPECT_EQ(ledger.Find(kEmpty, Tokens(1))->block, table[0]);
  EXPECT_EQ(ledger.Find(kEmpty, Tokens(1))->prefix, one);
  EXPECT_EQ(ledger.Find(one, Tokens(2))->block, table[1]);
  EXPECT_EQ(ledger.Find(one, Tokens(2))->step, StepId{5});
  EXPECT_EQ(ledger.Find(kEmpty, Tokens(2)), std::nullopt) << "after nothing";
  EXPECT_EQ(ledger.Find(two, Tokens(2)), std::nullopt);
  EXPECT_EQ(ledger.Remember(table[2], kEmpty, Tokens(1), StepId{6}), one) << "the same again";
  EXPECT_EQ(ledger.Find(kEmpty, Tokens(1))->block, table[0]);
}

TEST(KvLedgerTest, KnownBlocksStayUntilTheirPlaceIsNeeded) {
  KvLedger ledger(3);
  std::vector<KvBlockId> a, b, c;
  ASSERT_TRUE(ledger.Allocate(3, &a));
  const PrefixId one = ledger.Remember(a[0], kEmpty, Tokens(1), StepId{1});
  ledger.Remember(a[1], one, Tokens(2), StepId{1});
  const std::vector<KvBlockId> were = a;
  ledger.Release(&a);
  EXPECT_EQ(ledger.available(), 3);
  EXPECT_EQ(ledger.kept(), 2);
  ASSERT_TRUE(ledger.Allocate(1, &b));
  EXPECT_THAT(b, ElementsAre(were[2])) << "the one of which nothing is known";
  ledger.Share(absl::MakeConstSpan(were).subspan(0, 1), &c);
  EXPECT_EQ(ledger.kept(), 1);
  EXPECT_EQ(ledger.used(), 2);
  ASSERT_TRUE(ledger.Allocate(1, &b));
  EXPECT_EQ(b.back(), were[1]);
  EXPECT_EQ(ledger.Find(one, Tokens(2)), std::nullopt);
  EXPECT_TRUE(ledger.Find(kEmpty, Tokens(1)).has_value());
  EXPECT_FALSE(ledger.Allocate(1, &b));
}

// A block is of no use without those before it: theirs are the last places to be taken.
TEST(KvLedgerTest, TheEndOfAPrefixGoesBeforeItsBegin) {
  KvLedger ledger(3);
  std::vector<KvBlockId> a, b;
  ASSERT_TRUE(ledger.Allocate(3, &a));
  const PrefixId one = ledger.Remember(a[0], kEmpty, Tokens(1), StepId{1});
  const PrefixId two = ledger.Remember(a[1], one, Tokens(2), StepId{1});
  ledger.Remember(a[2], two, Tokens(3), StepId{1});
  ledger.Release(&a);
  ASSERT_TRUE(ledger.Allocate(1, &b));
  EXPECT_FALSE(ledger.Find(two, Tokens(3)).has_value());
  EXPECT_TRUE(ledger.Find(one, Tokens(2)).has_value());
  ASSERT_TRUE(ledger.Allocate(1, &b));
  EXPECT_FALSE(ledger.Find(one, Tokens(2)).has_value());
  EXPECT_TRUE(ledger.Find(kEmpty, Tokens(1)).has_value());
}

TEST(KvLedgerTest, NothingIsKeptUnlessAsked) {
  KvLedger ledger(2, /*keeps=*/false);
  std::vector<KvBlockId> a, b;
  ASSERT_TRUE(ledger.Allocate(1, &a));
  ledger.Remember(a[0], kEmpty, Tokens(1), StepId{1});
  ledger.Share(a, &b);
  ledger.Release(&a);
  EXPECT_TRUE(ledger.Find(kEmpty, Tokens(1)).has_value()) << "somebody holds it";
  ledger.Release(&b);
  EXPECT_FALSE(ledger.Find(kEmpty, Tokens(1)).has_value());
  EXPECT_EQ(ledger.kept(), 0);
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
