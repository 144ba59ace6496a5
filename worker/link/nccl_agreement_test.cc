#include "worker/link/nccl_agreement.h"

#include <cstring>
#include <thread>
#include <tuple>

#include "gtest/gtest.h"
#include "worker/link/loopback.h"
#include "worker/link/testing/fake_nccl.h"
#include "worker/stage_executor.h"

namespace bellwether {
namespace {

// Stages of 2, 3 and 1 ranks.
Assignment At(int stage, int rank, const std::string& kernel_level = "cuda_sm90") {
  Assignment assignment{
      .epoch = {5}, .stage = stage, .rank = rank, .numeric = {.kernel_level = kernel_level}};
  for (const int ranks : {2, 3, 1}) {
    assignment.layout.stages.emplace_back();
    assignment.layout.stages.back().ranks.resize(ranks);
  }
  return assignment;
}

std::vector<Assignment> Everyone() { return {At(0, 0), At(0, 1), At(1, 0), At(1, 1), At(1, 2), At(2, 0)}; }

// What each member finds out if those have the library.
std::vector<NcclAgreement> Agree(const std::vector<bool>& has_library) {
  const FakeNccl fake(FAKE_NCCL);
  const std::vector<Assignment> workers = Everyone();
  const size_t count = workers.size();
  std::vector<std::vector<std::unique_ptr<Link>>> links(count);
  for (auto& row : links) row.resize(count);
  for (size_t i = 0; i < count; ++i) {
    for (const int peer : LinkedWorkers(workers[i])) {
      if (peer > static_cast<int>(i)) std::tie(links[i][peer], links[peer][i]) = MakeLoopbackLinks();
    }
  }
  std::vector<NcclAgreement> agreements(count);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      std::vector<Link*> to;
      for (const auto& link : links[i]) to.push_back(link.get());
      const auto agreement = AgreeOnNccl(workers[i], MembersWith(workers[i]),
                                         has_library[i] ? fake.library().get() : nullptr, to);
      ASSERT_TRUE(agreement.ok()) << agreement.status();
      agreements[i] = *agreement;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return agreements;
}

TEST(NcclAgreement, WhereAllHaveItAllGetOneId) {
  const std::vector<NcclAgreement> agreements = Agree(std::vector<bool>(6, true));
  for (const NcclAgreement& agreement : agreements) {
    EXPECT_EQ(agreement.versions, std::vector<int>(6, 22809));
    ASSERT_TRUE(agreement.id.has_value());
    EXPECT_EQ(std::memcmp(&*agreement.id, &*agreements[0].id, sizeof(nccl::UniqueId)), 0);
  }
}

TEST(NcclAgreement, WhereOneLacksItAllKnowWho) {
  for (size_t lacks = 0; lacks < 6; ++lacks) {
    std::vector<bool> has(6, true);
    has[lacks] = false;
    std::vector<int> versions(6, 22809);
    versions[lacks] = 0;
    for (const NcclAgreement& agreement : Agree(has)) {
      EXPECT_EQ(agreement.versions, versions);
      EXPECT_FALSE(agreement.id.has_value());
    }
  }
  EXPECT_FALSE(Agree(std::vector<bool>(6, false))[0].id.has_value());
}

TEST(NcclMembers, AreTheGpuWorkersOfNeighbouringStages) {
  const NcclMembers members = MembersWith(At(1, 1));
  EXPECT_EQ(members.first_stage, 0);
  EXPECT_EQ(members.end_stage, 3);
  EXPECT_EQ(members.first, 0);
  EXPECT_EQ(members.size, 6);
  EXPECT_TRUE(members.Has(5));
  EXPECT_FALSE(members.Has(6));
  EXPECT_EQ(MembersWith(At(1, 1, "avx2")).size, 0);
}

}  // namespace
}  // namespace bellwether
