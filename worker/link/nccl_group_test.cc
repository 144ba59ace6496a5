#include "worker/link/nccl_group.h"

#include <functional>
#include <latch>
#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/counting_runtime.h"
#include "worker/device/gpu_device.h"
#include "worker/link/host_group.h"
#include "worker/link/loopback.h"
#include "worker/link/testing/executor_thread.h"
#include "worker/link/testing/fake_nccl.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

const FakeNccl& Fake() {
  static const FakeNccl& fake = *new FakeNccl(FAKE_NCCL);
  return fake;
}

// An emulated GPU whose work is not done while it is held: a stream with a copy that waits for its peer.
class HeldRuntime : public gpu::ForwardingRuntime {
 public:
  HeldRuntime() : ForwardingRuntime(gpu::MakeEmulatedRuntime({.memory_bytes = int64_t{1} << 28})) {}
  void Hold(bool held) { held_ = held; }

  absl::Status Synchronize() override {
    EXPECT_FALSE(held_) << "a wait that nothing can end";
    return ForwardingRuntime::Synchronize();
  }
  absl::StatusOr<bool> Done() override {
    if (held_) return false;
    return ForwardingRuntime::Done();
  }
  void* stream() override { return runtime_->stream(); }

 private:
  std::atomic<bool> held_{false};
};

// Stands still, or goes on by a second whenever somebody looks: limits are reached in no time, and not before
// a test says so.
class TestClock : public Clock {
 public:
  absl::Duration Now() const override { return absl::Seconds(runs ? ++seconds_ : seconds_.load()); }
  std::atomic<bool> runs{false};

 private:
  mutable std::atomic<int64_t> seconds_{1};
};

struct Limits {
  absl::Duration link_wait = absl::Seconds(30);
  absl::Duration connect = absl::Seconds(30);
  absl::Duration abort = absl::Seconds(30);
  const Clock* clock = Clock::Real();
};

constexpr int kStepTokens = 128;
constexpr int64_t kReduceFloats = 200000;
constexpr int kShareCols = 30000;

// A rank with its device; its links are shared by the group and by the one it falls back to.
class Rank {
 public:
  Rank(const std::vector<SliceRange>& rank_slices, int rank, std::vector<std::unique_ptr<Link>> links,
       const nccl::UniqueId& id, const Limits& limits)
      : rank_(rank), id_(id), links_(std::move(links)) {
    const int total = rank_slices.back().end;
    config_ = {.layers = 1,
               .hidden = 8 * total,
               .heads = total,
               .kv_heads = total,
               .head_dim = 8,
               .ffn = 32 * total,
               .vocab = 10};
    std::vector<SliceRange> roots;
    for (const SliceRange& slices : rank_slices) {
      for (const SliceRange& root : SubtreeRoots(slices, total)) roots.push_back(root);
    }
    device_ = std::make_unique<GpuDevice>(runtime_, /*threads=*/1);
    auto ops = device_->NewOps({.config = &config_,
                                .kernel_level = "cuda_sm90",
                                .rank = {.slices = rank_slices[rank]},
                                .layers = 1,
                                .kv_blocks = 1,
                                .context_tokens = 32,
                                .step_tokens = kStepTokens,
                                .roots = std::move(roots)});
    BW_CHECK(ops.ok());
    ops_ = std::unique_ptr<GpuOps>(static_cast<GpuOps*>(ops->release()));
    const int size = static_cast<int>(rank_slices.size());
    communicator_ =
        std::make_unique<NcclCommunicator>(NcclCommunicator::Options{.library = Fake().library(),
                                                                     .rank = rank,
                                                                     .size = size,
                                                                     .ops = ops_.get(),
                                                                     .connect_limit = limits.connect,
                                                                     .wait_limit = absl::Seconds(30),
                                                                     .abort_limit = limits.abort,
                                                                     .on_stuck =
                                                                         [this] {
                                                                           stuck = true;
                                                                           stuck.notify_all();
                                                                           Fake().Set("abort_hangs", 0);
                                                                         },
                                                                     .clock = limits.clock});
    NcclGroup::Options options{.rank = rank,
                               .slices_total = total,
                               .rank_slices = rank_slices,
                               .communicator = communicator_.get(),
                               .ops = ops_.get(),
                               .fallback = &fallback};
    for (const auto& link : links_) options.links.push_back(link.get());
    group_ =
        *NcclGroup::Create(std::move(options), {.reduce_floats = kReduceFloats, .share_cols = kShareCols});
    own_roots_ = static_cast<int64_t>(SubtreeRoots(rank_slices[rank], total).size());
    few_ = Put({1, 2, 3, 4, 5, 6, 7, 8});
  }

  absl::Status Connect() {
    std::vector<int> peers;
    for (int r = 0; r < group_->size(); ++r) {
      if (r != rank_) peers.push_back(r);
    }
    return communicator_->Connect(id_, peers);
  }
  float* Put(const std::vector<float>& values) {
    float* data = *ops_->Allocate(static_cast<int64_t>(values.size()));
    EXPECT_TRUE(ops_->Write(values, data).ok());
    return data;
  }
  std::vector<float> Get(const float* from, size_t count) {
    std::vector<float> values(count);
    const absl::Status status = ops_->Read(from, absl::MakeSpan(values));
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }
  // An all-reduce of one float.
  absl::Status Reduce(uint64_t step, int layer = 0) {
    return group_->AllReduce({.epoch = {7}, .step = {step}, .layer = layer, .rows = 1, .cols = 1},
                             absl::MakeConstSpan(few_, own_roots_), absl::MakeSpan(few_ + own_roots_, 1));
  }

  NcclGroup& group() { return *group_; }
  GpuOps& ops() { return *ops_; }
  HeldRuntime& runtime() { return *runtime_; }
  NcclCommunicator& communicator() { return *communicator_; }
  void DropCommunicator() {
    group_.reset();
    communicator_.reset();
  }

  class CountingGroup : public TensorParallelGroup {
   public:
    int rank() const override { return 0; }
    int size() const override { return 2; }
    absl::Status AllReduce(MessageTag, absl::Span<const float>, absl::Span<float>) override { return Call(); }
    absl::Status ShareRows(MessageTag, absl::Span<const int>, absl::Span<float>) override { return Call(); }
    absl::Status GatherColumns(MessageTag, absl::Span<const int64_t>, absl::Span<float>) override {
      return Call();
    }
    void Abort(const absl::Status&) override {}
    absl::Status Call() {
      ++calls;
      return absl::OkStatus();
    }
    int calls = 0;
  };
  CountingGroup fallback;
  std::atomic<bool> stuck{false};

 private:
  const int rank_;
  const nccl::UniqueId id_;
  const std::vector<std::unique_ptr<Link>> links_;
  ModelConfig config_;
  int64_t own_roots_ = 0;
  float* few_ = nullptr;  // floats for reductions of one
  const std::shared_ptr<HeldRuntime> runtime_ = std::make_shared<HeldRuntime>();
  std::unique_ptr<GpuDevice> device_;
  std::unique_ptr<GpuOps> ops_;
  std::unique_ptr<NcclCommunicator> communicator_;
  std::unique_ptr<NcclGroup> group_;
};

using LinkRows = std::vector<std::vector<std::unique_ptr<Link>>>;
LinkRows MakeLinks(int ranks, absl::Duration wait_limit) {
  LinkRows links(ranks);
  for (auto& row : links) row.resize(ranks);
  for (int a = 0; a < ranks; ++a) {
    for (int b = a + 1; b < ranks; ++b) {
      std::tie(links[a][b], links[b][a]) = MakeLoopbackLinks({.first_name = "rank " + std::to_string(a),
                                                              .second_name = "rank " + std::to_string(b),
                                                              .wait_limit = wait_limit});
    }
  }
  return links;
}

class Ranks {
 public:
  explicit Ranks(const std::vector<SliceRange>& slices, const Limits& limits = {}) : slices_(slices) {
    nccl::UniqueId id;
    BW_CHECK_EQ(Fake().library()->call().get_unique_id(&id), nccl::kSuccess);
    LinkRows links = MakeLinks(size(), limits.link_wait);
    for (int r = 0; r < size(); ++r) {
      ranks_.push_back(std::make_unique<Rank>(slices, r, std::move(links[r]), id, limits));
      threads_.push_back(std::make_unique<ExecutorThread>());
    }
  }
  ~Ranks() {
    for (int r = 0; r < size(); ++r) On(r, [&] { ranks_[r].reset(); });
  }
  ExecutorThread& thread(int r) { return *threads_[r]; }
  void On(int r, const std::function<void()>& task) { threads_[r]->Run(task); }
  void OnEach(const std::function<void(int, Rank&)>& body) {
    std::latch done(size());
    for (int r = 0; r < size(); ++r) {
      threads_[r]->Begin([&, r] {
        body(r, *ranks_[r]);
        done.count_down();
      });
    }
    done.wait();
  }
  void Connect() {
    OnEach([](int, Rank& rank) {
      const absl::Status status = rank.Connect();
      ASSERT_TRUE(status.ok()) << status;
    });
  }
  int size() const { return static_cast<int>(slices_.size()); }
  Rank& operator[](int r) { return *ranks_[r]; }

 private:
  const std::vector<SliceRange> slices_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<std::unique_ptr<ExecutorThread>> threads_;
};

// Values whose sum depends on the order of the additions.
float Value(int root, int64_t element) {
  const uint32_t hash = static_cast<uint32_t>(root * 7919 + element) * 2654435761u;
  return (static_cast<int32_t>(hash) / 1e6f) / static_cast<float>(1 << (hash % 13));
}

class NcclGroupTest : public testing::TestWithParam<std::vector<int>> {
 protected:
  ~NcclGroupTest() override { EXPECT_EQ(Fake().Get("foreign_calls"), 0); }
  std::vector<SliceRange> Slices() const {
    std::vector<SliceRange> slices;
    for (size_t r = 0; r + 1 < GetParam().size(); ++r) slices.push_back({GetParam()[r], GetParam()[r + 1]});
    return slices;
  }
};

// The same bits as a HostGroup's, by every way that an all-reduce may take.
TEST_P(NcclGroupTest, SumsAsTheHostDoes) {
  const std::vector<SliceRange> slices = Slices();
  const int total = slices.back().end;
  Ranks ranks(slices);
  ranks.Connect();
  LinkRows links = MakeLinks(ranks.size(), absl::Seconds(30));
  std::vector<int> roots_of;
  int all_roots = 0;
  for (const SliceRange& range : slices) {
    roots_of.push_back(static_cast<int>(SubtreeRoots(range, total).size()));
    all_roots += roots_of.back();
  }
  const auto flat_max = static_cast<int>(NcclGroup::kFlatFloatsMax / all_roots);
  ranks.OnEach([&](int r, Rank& rank) {
    HostGroup host({.rank = r, .slices_total = total, .rank_slices = slices, .links = std::move(links[r])});
    int first_root = 0;
    for (int before = 0; before < r; ++before) first_root += roots_of[before];
    uint64_t step = 0;
    for (const int count : {1, 3, 17, 1023, flat_max, flat_max + 1, flat_max + 1234}) {
      std::vector<float> roots, expected(count);
      for (int root = 0; root < roots_of[r]; ++root) {
        for (int i = 0; i < count; ++i) roots.push_back(Value(first_root + root, i));
      }
      const MessageTag tag{.epoch = {1}, .step = {++step}, .rows = 1, .cols = count};
      ASSERT_TRUE(host.AllReduce(tag, roots, absl::MakeSpan(expected)).ok());
      const float* in = rank.Put(roots);
      float* out = rank.Put(std::vector<float>(count, -1));
      const absl::Status status =
          rank.group().AllReduce(tag, absl::MakeConstSpan(in, roots.size()), absl::MakeSpan(out, count));
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(rank.Get(out, count), expected) << count << " floats, rank " << r;
    }
  });
}

TEST_P(NcclGroupTest, SharesRowsOfAnyOwner) {
  Ranks ranks(Slices());
  ranks.Connect();
  const int size = ranks.size();
  struct Shape {
    int rows, cols;
  };
  ranks.OnEach([&](int r, Rank& rank) {
    // One block of rows, several, and rows of a block each.
    for (const auto& [rows, cols] : {Shape{0, 8}, {1, 3}, {100, 70}, {30, 9000}, {5, kShareCols}}) {
      for (int pattern = 0; pattern < 3; ++pattern) {
        std::vector<int> owner(rows);
        std::vector<float> own, expected;
        for (int i = 0; i < rows; ++i) {
          owner[i] = pattern == 0 ? i * 7 % size : pattern == 1 ? i * size / rows : size - 1;
          for (int col = 0; col < cols; ++col) {
            expected.push_back(i * 1000.0f + col);
            own.push_back(owner[i] == r ? expected.back() : -1);
          }
        }
        rank.ops().Begin({});
        float* data = rank.Put(own);
        const MessageTag tag{.epoch = {1}, .step = {1}, .rows = rows, .cols = cols};
        const absl::Status status = rank.group().ShareRows(tag, owner, absl::MakeSpan(data, own.size()));
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_EQ(rank.Get(data, own.size()), expected) << rows << " x " << cols;
      }
    }
  });
}

TEST_P(NcclGroupTest, GathersColumnsOnRankZero) {
  Ranks ranks(Slices());
  ranks.Connect();
  const int size = ranks.size(), rows = 5;
  ranks.OnEach([&](int r, Rank& rank) {
    for (const int64_t vocabulary : {3, 1000}) {
      std::vector<int64_t> bounds;  // uneven; the small vocabulary leaves ranks without columns
      for (int64_t i = 0; i <= size; ++i) bounds.push_back(vocabulary * i * i / (size * size));
      const int64_t begin = r == 0 ? 0 : bounds[r], width = r == 0 ? vocabulary : bounds[r + 1] - bounds[r];
      std::vector<float> own(rows * width, -1), expected;
      for (int row = 0; row < rows; ++row) {
        for (int64_t c = bounds[r]; c < bounds[r + 1]; ++c) own[row * width + c - begin] = row * 1e6f + c;
        for (int64_t c = 0; c < vocabulary; ++c) expected.push_back(row * 1e6f + c);
      }
      float* data = rank.Put(own);
      const MessageTag tag{.epoch = {1}, .step = {1}, .rows = rows, .cols = static_cast<int32_t>(vocabulary)};
      const absl::Status status = rank.group().GatherColumns(tag, bounds, absl::MakeSpan(data, own.size()));
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(rank.Get(data, own.size()), r == 0 ? expected : own);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Splits, NcclGroupTest,
                         testing::Values(std::vector<int>{0, 8, 16}, std::vector<int>{0, 1, 16},
                                         std::vector<int>{0, 5, 9, 14}, std::vector<int>{0, 4, 8, 12, 16},
                                         std::vector<int>{0, 3, 6, 10, 13, 16}),
                         [](const testing::TestParamInfo<std::vector<int>>& info) {
                           std::string name = "slices";
                           for (const int bound : info.param) name += "_" + std::to_string(bound);
                           return name;
                         });

// -- Bad days

const std::vector<SliceRange> kTwoRanks = {{0, 1}, {1, 2}};

class NcclFaults : public testing::Test {
 protected:
  ~NcclFaults() override {
    for (const char* what : {"init_hangs", "async_error", "abort_hangs"}) Fake().Set(what, 0);
    Fake().Set("version", 22809);
    EXPECT_EQ(Fake().Get("live"), 0) << "communicators that were never aborted";
    EXPECT_EQ(Fake().Get("foreign_calls"), 0) << "a thread that is not the executor's calls NCCL";
  }
};

TEST_F(NcclFaults, AnotherThreadThanTheExecutorsIsFoundOut) {
  Ranks ranks(kTwoRanks);
  float* const row = ranks[0].Put({1});
  ranks.Connect();
  EXPECT_EQ(Fake().Get("foreign_calls"), 0);
  const absl::Status status = ranks[0].communicator().Exchange({{.peer = 1, .from = row, .floats = 1}});
  EXPECT_THAT(std::string(status.message()), HasSubstr("invalid usage"));
  EXPECT_EQ(Fake().Get("foreign_calls"), 1);
  Fake().Set("foreign_calls", 0);
}

TEST_F(NcclFaults, WithoutACommunicatorAllGoesTheOtherWay) {
  Ranks ranks(kTwoRanks);
  EXPECT_TRUE(ranks[0].Reduce(1).ok());
  EXPECT_TRUE(ranks[0].group().ShareRows({}, {}, {}).ok());
  EXPECT_TRUE(ranks[0].group().GatherColumns({}, {}, {}).ok());
  EXPECT_EQ(ranks[0].fallback.calls, 3);
}

TEST_F(NcclFaults, RanksInDifferentStepsFindOut) {
  Ranks ranks(kTwoRanks);
  ranks.Connect();
  ranks.OnEach([](int r, Rank& rank) {
    const absl::Status status = rank.Reduce(100 + r);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr("step 100"), HasSubstr("step 101")));
  });
}

TEST_F(NcclFaults, ASilentPeerIsNamedAtTheBeginningOfAStep) {
  Ranks ranks(kTwoRanks, {.link_wait = absl::Milliseconds(20)});
  ranks.Connect();
  ranks.On(0, [&] {
    const absl::Status status = ranks[0].Reduce(1);
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("from rank 1"));
  });
}

TEST_F(NcclFaults, APeerThatStopsInTheMiddleOfAStepEndsTheWait) {
  TestClock clock;
  Ranks ranks(kTwoRanks, {.clock = &clock});
  ranks.Connect();
  std::latch both_done(2);
  ranks.OnEach([&](int r, Rank& rank) {
    const absl::Status first = rank.Reduce(1);
    EXPECT_TRUE(first.ok()) << first;
    both_done.arrive_and_wait();
    if (r == 1) {
      clock.runs = true;
      return;
    }
    const absl::Status second = rank.Reduce(1, /*layer=*/1);
    EXPECT_EQ(second.code(), absl::StatusCode::kDeadlineExceeded) << second;
    EXPECT_THAT(std::string(second.message()), HasSubstr("a peer has stopped"));
  });
}

TEST_F(NcclFaults, AnAsynchronousErrorEndsTheWait) {
  Ranks ranks(kTwoRanks);
  ranks.Connect();
  std::latch both_done(2);  // the other may still be in its first
  ranks.OnEach([&](int r, Rank& rank) {
    EXPECT_TRUE(rank.Reduce(1).ok());
    both_done.arrive_and_wait();
    if (r == 1) return Fake().Set("async_error", nccl::kRemoteError);
    const absl::Status second = rank.Reduce(1, /*layer=*/1);
    EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable) << second;
    EXPECT_THAT(std::string(second.message()), HasSubstr("a fault on demand"));
  });
}

TEST_F(NcclFaults, AbortEndsTheWaitForAPeer) {
  Ranks ranks(kTwoRanks);
  ranks.Connect();
  std::latch both_done(2);
  ranks.OnEach([&](int r, Rank& rank) {
    EXPECT_TRUE(rank.Reduce(1).ok());
    both_done.arrive_and_wait();
    if (r == 1) return ranks[0].group().Abort(absl::AbortedError("epoch 7 has ended"));
    EXPECT_EQ(rank.Reduce(1, /*layer=*/1).message(), "epoch 7 has ended");
    EXPECT_EQ(rank.Reduce(1, /*layer=*/2).message(), "epoch 7 has ended");
  });
}

// The host waits for its own GPU, which waits for a peer's: nothing but NCCL's abort ends that.
TEST_F(NcclFaults, AbortEndsTheWaitForTheGpu) {
  Ranks ranks(kTwoRanks);
  ranks.Connect();
  ranks[0].runtime().Hold(true);
  ranks.thread(0).Begin([&] {
    EXPECT_EQ(ranks[0].ops().Finish().message(), "epoch 7 has ended");
    EXPECT_EQ(ranks[0].ops().Finish().message(), "epoch 7 has ended");  // does not wait again
  });
  ranks[0].group().Abort(absl::AbortedError("epoch 7 has ended"));
  ranks.On(0, [] {});
  ranks[0].runtime().Hold(false);  // as the abort does
}

TEST_F(NcclFaults, AGpuThatIsNeverDoneEndsTheWaitAtTheLimit) {
  TestClock clock;
  Ranks ranks(kTwoRanks, {.clock = &clock});
  ranks.Connect();
  ranks[0].runtime().Hold(true);
  clock.runs = true;
  ranks.On(0, [&] { EXPECT_EQ(ranks[0].ops().Finish().code(), absl::StatusCode::kDeadlineExceeded); });
  ranks[0].runtime().Hold(false);
}

TEST_F(NcclFaults, JoiningEndsAtTheLimit) {
  Fake().Set("init_hangs", 2);
  Ranks ranks(kTwoRanks, {.connect = absl::Milliseconds(20)});
  ranks.OnEach([](int r, Rank& rank) {
    const absl::Status status = rank.Connect();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("joining as rank " + std::to_string(r) + " of 2"));
    EXPECT_FALSE(rank.communicator().connected());
  });
}

TEST_F(NcclFaults, AbortEndsJoining) {
  Ranks ranks(kTwoRanks);  // the second never comes
  ranks.thread(0).Begin([&] { EXPECT_EQ(ranks[0].Connect().message(), "epoch 7 has ended"); });
  ranks[0].communicator().Abort(absl::AbortedError("epoch 7 has ended"));
  ranks.On(0, [] {});
}

TEST_F(NcclFaults, AnAbortThatHangsIsReportedInTime) {
  Ranks ranks(kTwoRanks, {.abort = absl::Milliseconds(20)});
  ranks.Connect();
  Fake().Set("abort_hangs", 1);
  ranks.On(0, [&] { ranks[0].DropCommunicator(); });
  EXPECT_TRUE(ranks[0].stuck);
}

// A launch waits for a place in the driver's queue, behind work that waits for a peer who is gone: the owner
// looks at nothing any more.
TEST_F(NcclFaults, AnOwnerWhoDoesNotComeToTheAbortIsReportedInTime) {
  Ranks ranks(kTwoRanks, {.abort = absl::Milliseconds(20)});
  ranks.Connect();
  ranks.thread(0).Begin([&] { ranks[0].stuck.wait(false); });
  ranks[0].communicator().Abort(absl::AbortedError("epoch 7 has ended"));
  ranks.On(0, [] {});
}

// The workers may have agreed to go without NCCL: then an owner who takes long does something else.
TEST_F(NcclFaults, WithoutACommunicatorNobodyIsWatched) {
  Ranks ranks(kTwoRanks, {.abort = absl::ZeroDuration()});
  ranks[0].communicator().Abort(absl::AbortedError("epoch 7 has ended"));
  ranks.On(0, [&] { EXPECT_EQ(ranks[0].Connect().message(), "epoch 7 has ended"); });
  ranks.On(0, [&] { ranks[0].DropCommunicator(); });
  EXPECT_FALSE(ranks[0].stuck);
}

TEST_F(NcclFaults, AnAbortThatEndsIsNotReported) {
  Ranks ranks(kTwoRanks);
  ranks.Connect();
  ranks[0].communicator().Abort(absl::AbortedError("epoch 7 has ended"));
  ranks.On(0, [&] { ranks[0].DropCommunicator(); });
  EXPECT_FALSE(ranks[0].stuck);
}

TEST(NcclLibrary, SaysWhatIsMissing) {
  const auto missing = NcclLibrary::Load("/nowhere/libnccl.so.2");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nowhere/libnccl.so.2"));
  const auto other = NcclLibrary::Load("libm.so.6");
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("ncclGetVersion"));
}

TEST_F(NcclFaults, AnOldLibraryIsRefused) {
  Fake().Set("version", 21203);
  const auto old = NcclLibrary::Load(FAKE_NCCL);
  EXPECT_EQ(old.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(old.status().message()), testing::AllOf(HasSubstr("2.12.3"), HasSubstr("2.18.0")));
}

}  // namespace
}  // namespace bellwether
