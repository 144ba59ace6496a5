// The engine and fake workers in one thread, from a seed: random arrivals, lengths, choices, cancels,
// deadlines, lost layouts, with so few KV blocks that preemption is common. Whatever happens, an answer is as
// if nothing had. A failure prints the seed; run it again with
// --gtest_filter=*Seeds* and BELLWETHER_SIMULATION_SEED.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/step_bytes.h"
#include "coordinator/engine.h"
#include "coordinator/testing/fake_tokenizer.h"
#include "gtest/gtest.h"
#include "tests/simulation/fake_cluster.h"

namespace bellwether {
namespace {

constexpr TokenId kEos = 0;

// Words that overlap, special tokens, and a character cut into single bytes, whole and broken.
FakeTokenizer MakeTokenizer() {
  return FakeTokenizer({"",         "a",        "b",        "ab", "ba", "abc", "\xE9", "\xB9",
                        "\x85",     "\xF0\x9F", "\x98\x80", " ",  "c",  "ca",  "é",    "\xE4\xBD",
                        "\xA0\xE5", "\xA5\xBD", "\n",       "x",  "xy", "yx",  "y",    ""});
}

struct Answer {
  std::vector<TokenId> tokens;
  std::string text;
  std::optional<FinishReason> finish;
};

// What a client has asked for and got.
struct Client {
  EngineRequest asked;
  absl::StatusCode refusal = absl::StatusCode::kOk;  // foreseen at arrival
  std::vector<Answer> answers;
  std::optional<std::vector<float>> scores;
  std::vector<TokenLogprob> best;
  int interruptions = 0;
  std::optional<RequestDone> done;
};

// Counts over all seeds: a simulation that never meets a case proves nothing about it.
struct Coverage {
  int64_t preemptions = 0, forks = 0, layouts_lost = 0, too_large = 0, too_long = 0, cancelled = 0,
          deadlines = 0, stopped = 0, failed = 0;
  int64_t finished = 0, scored = 0, readmissions = 0, layouts_replaced = 0, deepest = 0;
  int64_t resumed = 0, fruitless = 0, impatient = 0, other_bits = 0, ended_at_once = 0;
  int64_t known_prompts = 0;
};

// Where a stop string is complete first; the longest one of those complete there. npos if none is.
size_t StopPosition(const std::string& text, const std::vector<std::string>& stops) {
  size_t best_end = std::string::npos, best_begin = std::string::npos;
  for (const std::string& stop : stops) {
    const size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_end = end;
      best_begin = begin;
    }
  }
  return best_begin;
}

class Simulation {
 public:
  Simulation(uint64_t seed, Coverage* coverage)
      : random_(seed), coverage_(coverage), tokenizer_(MakeTokenizer()) {
    options_.step_tokens_max = Draw(1, 3) == 1 ? Draw(1, 8) : Draw(8, 80);
    options_.sequences_max = Draw(1, 16);
    options_.requests_waiting_max = Draw(0, 12);
    options_.context_tokens_max = Draw(40, 220);
    // From a single admission of middling length to several of the longest.
    options_.step_bytes_max = AllButAdmissions() + Draw(500, 3000);
    options_.eos = {kEos};
    options_.seed = seed;
    options_.prefix_cache = Draw(0, 3) != 0;
    if (Draw(0, 1) == 0) options_.resume_wait = absl::Milliseconds(Draw(0, 4));
    arrivals_ = Draw(5, 100);
    losses_ = std::max(0, Draw(-3, 4));
    kv_blocks_ = Draw(3, 14);
    crowded_ = Draw(0, 1) == 1;
    engine_.emplace(options_, &tokenizer_);
  }

  void Run() {
    const int events = Draw(200, 2000);
    Ready();
    for (int i = 0; i < events && !failed(); ++i) RandomEvent();
    // Everything that is here ends, and in a bounded number of events.
    while (!failed() && (!engine_->idle() || !results_.empty())) {
      if (!serving_) {
        Ready();
      } else if (!results_.empty()) {
        Deliver();
      } else {
        ADD_FAILURE() << "requests are here, but no step is in flight";
      }
    }
    if (!failed()) CheckAtRest();
  }

 private:
  bool failed() const { return ::testing::Test::HasFailure(); }
  int Draw(int low, int high) { return static_cast<int>(low + random_() % (high - low + 1)); }

  void RandomEvent() {
    now_ += absl::Milliseconds(Draw(0, 3));
    int kind = Draw(0, 999);
    const auto is = [&kind](int permille) { return (kind -= permille) < 0; };
    if (is(arrivals_)) {
      for (int burst = Draw(0, 9) == 0 ? Draw(2, 6) : 1; burst > 0 && !failed(); --burst) Arrive();
    } else if (is(20)) {
      Cancel();
    } else if (is(losses_)) {
      Lose();
      // A cluster that ends whenever it runs; what it runs cannot go on for ever.
      for (int again = Draw(0, 3) == 0 ? Draw(1, 4) : 0; again > 0 && !failed(); --again) {
        Ready();
        Lose();
      }
    } else if (is(losses_)) {
      Replace();
    } else if (is(30)) {
      Handle(Tick{});
    } else if (!serving_) {
      Ready();
    } else if (!results_.empty()) {
      Deliver();
    }
  }

  void Ready() {
    limits_.kv_blocks = kv_blocks_ + Draw(-1, 1);
    limits_.stages = Draw(1, 4);
    limits_.step_tokens_max = options_.step_tokens_max;
    limits_.sequences_max = options_.sequences_max;
    limits_.step_bytes_max = options_.step_bytes_max;
    epoch_ = Epoch{epoch_.value + 1};
    CountCluster();
    cluster_.emplace(epoch_, limits_);
    results_.clear();
    serving_ = true;
    other_bits_ = Draw(0, 7) == 0;  // so it says; the model stays the same
    Handle(LayoutUp{.epoch = epoch_,
                    .kv_blocks = limits_.kv_blocks,
                    .stages = limits_.stages,
                    .other_bits = other_bits_});
    other_bits_ = false;
  }

  // A new epoch while requests are here: they go on.
  void Replace() {
    if (!serving_) return;
    ++coverage_->layouts_replaced;
    stale_.insert(stale_.end(), results_.begin(), results_.end());
    Ready();
  }

  void Lose() {
    if (!serving_) return;
    ++coverage_->layouts_lost;
    serving_ = false;
    stale_.insert(stale_.end(), results_.begin(), results_.end());
    results_.clear();
    Handle(LayoutDown{epoch_, absl::UnavailableError("worker 2 is lost"), /*planned=*/Draw(0, 3) == 0});
    EXPECT_TRUE(engine_->idle() || options_.resume_wait > absl::ZeroDuration());
    EXPECT_FALSE(engine_->snapshot().serving);
    EXPECT_EQ(engine_->snapshot().kv_blocks_used, 0);
    EXPECT_EQ(engine_->snapshot().sequences_running, 0);
  }

  void Deliver() {
    if (!stale_.empty() && Draw(0, 3) == 0) {  // a late message of an old epoch
      StepResult old = stale_.front();
      stale_.pop_front();
      Handle(StepFinished{std::move(old)});
      return;
    }
    StepResult result = std::move(results_.front());
    results_.pop_front();
    Handle(StepFinished{std::move(result)});
  }

  void Cancel() {
    if (clients_.empty()) return;
    const uint64_t id =
        Draw(std::max(1, static_cast<int>(last_request_) - 6), static_cast<int>(last_request_));
    Handle(RequestCancelled{RequestId{id}});
  }

  void Arrive() {
    EngineRequest request;
    request.id = RequestId{++last_request_};
    if (!clients_.empty() && Draw(0, 2) == 0) request.prompt = Known();
    const bool any_prompt = !crowded_ && Draw(0, 3) == 0;
    const int prompt = any_prompt ? Draw(1, options_.context_tokens_max + 4) : Draw(1, 70);
    for (int i = static_cast<int>(request.prompt.size()); i < prompt || i == 0; ++i)
      request.prompt.push_back(Draw(0, FakeModel::kVocab - 1));
    request.score = Draw(0, 9) == 0;
    request.max_tokens = crowded_ ? Draw(30, 100) : Draw(0, 3) == 0 ? 1 << 20 : Draw(1, 120);
    request.choices = request.score ? 1 : std::max(1, Draw(-3, 4));
    if (Draw(0, 1) == 1) request.seed = random_();
    request.sampling.logprobs = Draw(-1, 2);
    request.ignore_eos = crowded_ || Draw(0, 2) != 0;
    if (!crowded_ && Draw(0, 4) == 0) request.stop_token_ids = {TokenId{19}};
    constexpr const char* kStops[] = {"abab", "bca", "xyx", "éa", "高", "ab\n", "你好", "yyx"};
    for (int i = crowded_ ? 0 : Draw(0, 3); i > 0; --i) request.stop.push_back(kStops[Draw(0, 7)]);
    if (Draw(0, crowded_ ? 20 : 6) == 0) request.deadline = now_ + absl::Milliseconds(Draw(0, 300));
    Client& client = clients_[request.id.value];
    client.asked = request;
    client.refusal = Foresee(request);
    client.answers.resize(request.choices);
    Handle(RequestArrived{std::move(request)});
  }

  // A conversation that goes on, or what it and others begin with.
  std::vector<TokenId> Known() {
    const int latest = static_cast<int>(clients_.size()) - 1;
    const auto& [id, client] = *std::next(clients_.begin(), Draw(0, 1) == 0 ? latest : Draw(0, latest));
    std::vector<TokenId> tokens = client.asked.prompt;
    const std::vector<TokenId>& answer = client.answers[0].tokens;
    tokens.insert(tokens.end(), answer.begin(), answer.end());
    tokens.resize(Draw(Draw(0, 1), static_cast<int>(std::min<size_t>(tokens.size(), 150))));
    return tokens;
  }

  int64_t AllButAdmissions() const { return -AdmissionsBytesMax(0, options_.sequences_max); }

  absl::StatusCode Foresee(const EngineRequest& request) const {
    const int32_t prompt = static_cast<int32_t>(request.prompt.size());
    const int32_t positions = request.score ? prompt - 1 : prompt;
    if (!serving_) return absl::StatusCode::kUnavailable;
    if (live_ >= options_.sequences_max + options_.requests_waiting_max)
      return absl::StatusCode::kResourceExhausted;
    if (prompt + (request.score ? 0 : 1) > options_.context_tokens_max)
      return absl::StatusCode::kInvalidArgument;
    if (positions > limits_.kv_blocks * kKvBlockTokens) return absl::StatusCode::kResourceExhausted;
    const int32_t output =
        request.score ? 0 : std::min(request.max_tokens, options_.context_tokens_max - prompt);
    SamplingOptions sampling = request.sampling;
    sampling.ending_tokens = request.stop_token_ids;
    if (!request.ignore_eos) sampling.ending_tokens.push_back(kEos);
    if (AdmissionBytesMax(prompt + output, sampling) > options_.step_bytes_max - AllButAdmissions()) {
      ++coverage_->too_long;
      return absl::StatusCode::kInvalidArgument;
    }
    return absl::StatusCode::kOk;
  }

  void Handle(Event event) {
    const bool arrival = std::holds_alternative<RequestArrived>(event);
    if (arrival) ++live_;
    for (Action& action : engine_->Handle(std::move(event), now_)) {
      std::visit([this](auto& a) { Take(a); }, action);
      if (failed()) return;
    }
    const EngineSnapshot state = engine_->snapshot();
    EXPECT_LE(state.steps_in_flight, limits_.stages);
    EXPECT_LE(state.sequences_running, options_.sequences_max);
    coverage_->deepest = std::max<int64_t>(coverage_->deepest, state.steps_in_flight);
    EXPECT_EQ(engine_->idle(), live_ == 0);
  }

  void Take(SendStep& action) {
    ASSERT_TRUE(serving_);
    StepResult result;
    const absl::Status status = cluster_->Run(action.step, &result);
    ASSERT_TRUE(status.ok()) << status.message();
    results_.push_back(std::move(result));
  }

  void Take(EmitTokens& action) {
    Client& client = clients_.at(action.request.value);
    ASSERT_FALSE(client.done.has_value());
    const TokenChunk& chunk = action.chunk;
    Answer& answer = client.answers.at(chunk.choice);
    ASSERT_FALSE(answer.finish.has_value()) << "a chunk after the last one";
    ASSERT_EQ(chunk.index, answer.tokens.size()) << "a token lost or doubled";
    EXPECT_EQ(chunk.logprobs.size(), client.asked.sampling.logprobs >= 0 ? chunk.tokens.size() : 0);
    answer.tokens.insert(answer.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    answer.text += chunk.text;
    answer.finish = chunk.finish;
  }

  void Take(EmitScores& action) {
    Client& client = clients_.at(action.request.value);
    ASSERT_FALSE(client.scores.has_value());
    client.scores = std::move(action.logprobs);
    client.best = std::move(action.best);
  }

  void Take(Interrupted& action) {
    EXPECT_FALSE(serving_);
    Client& client = clients_.at(action.request.value);
    ASSERT_FALSE(client.done.has_value());
    EXPECT_EQ(action.reason, "worker 2 is lost");
    ++client.interruptions;
  }

  void Take(FailEpoch& action) { ADD_FAILURE() << action.reason; }

  void Take(RequestDone& action) {
    Client& client = clients_.at(action.request.value);
    ASSERT_FALSE(client.done.has_value()) << "a request ended twice";
    client.done = std::move(action);
    --live_;
    CheckClient(client);
  }

  void CheckClient(const Client& client) {
    const RequestDone& done = *client.done;
    SCOPED_TRACE(testing::Message() << "request " << done.request.value << " " << done.status);
    ASSERT_EQ(done.usage.prompt_tokens, client.asked.prompt.size());
    EXPECT_LE(done.usage.cached_prompt_tokens, std::max(done.usage.prompt_tokens - 1, 0));
    if (done.usage.cached_prompt_tokens > 0) {
      EXPECT_FALSE(client.asked.score);
      ++coverage_->known_prompts;
    }
    if (client.refusal != absl::StatusCode::kOk) {
      EXPECT_EQ(done.status.code(), client.refusal);
      for (const Answer& answer : client.answers) EXPECT_FALSE(answer.finish.has_value());
      return;
    }
    if (client.asked.seed) {
      EXPECT_EQ(done.seed, *client.asked.seed);
    }
    if (client.asked.score) return CheckScores(client);
    size_t generated = 0;
    for (size_t i = 0; i < client.answers.size(); ++i) {
      CheckAnswer(client, static_cast<int32_t>(i));
      generated += client.answers[i].tokens.size();
    }
    EXPECT_EQ(done.usage.generated_tokens, generated);
    CheckStatus(client);
  }

  void CheckStatus(const Client& client) {
    bool all_finished = true;
    for (const Answer& answer : client.answers) {
      all_finished &= answer.finish == FinishReason::kStop || answer.finish == FinishReason::kLength;
    }
    switch (client.done->status.code()) {
      case absl::StatusCode::kOk:
        EXPECT_TRUE(all_finished);
        EXPECT_EQ(client.done->usage.interruptions, client.interruptions);
        ++coverage_->finished;
        if (client.interruptions > 0) ++coverage_->resumed;
        return;
      case absl::StatusCode::kCancelled:
        ++coverage_->cancelled;
        break;
      case absl::StatusCode::kDeadlineExceeded:
        EXPECT_LE(client.asked.deadline, now_);
        ++coverage_->deadlines;
        break;
      case absl::StatusCode::kUnavailable:
        CheckUnavailable(client);
        break;
      case absl::StatusCode::kResourceExhausted: {
        size_t longest = 0;
        for (const Answer& answer : client.answers) longest = std::max(longest, answer.tokens.size());
        EXPECT_GT(client.asked.prompt.size() + longest, size_t(limits_.kv_blocks) * kKvBlockTokens);
        ++coverage_->too_large;
        break;
      }
      case absl::StatusCode::kInternal: {
        bool no_token = false;
        for (size_t i = 0; i < client.answers.size(); ++i) {
          uint64_t state = FakeModel::Absorb(client.asked.prompt);
          for (TokenId token : client.answers[i].tokens) state = FakeModel::Absorb(state, token);
          no_token |= FakeModel::Sample(state, client.done->seed, static_cast<int32_t>(i)) < 0;
        }
        EXPECT_TRUE(no_token);
        ++coverage_->failed;
        break;
      }
      default:
        ADD_FAILURE() << "unforeseen status";
    }
    EXPECT_FALSE(all_finished);
  }

  // Of a request that was taken, and ended because of its workers: why it could not go on.
  void CheckUnavailable(const Client& client) {
    const std::string reason(client.done->status.message());
    const auto says = [&reason](const char* words) { return reason.find(words) != std::string::npos; };
    if (says("compute other bits")) {
      EXPECT_TRUE(other_bits_);
      EXPECT_TRUE(std::any_of(client.answers.begin(), client.answers.end(),
                              [](const Answer& answer) { return !answer.tokens.empty(); }));
      ++coverage_->other_bits;
      return;
    }
    EXPECT_FALSE(serving_);
    EXPECT_TRUE(reason.starts_with("worker 2 is lost"));
    if (says("3 epochs in a row")) {
      EXPECT_GE(client.interruptions, 2);
      ++coverage_->fruitless;
    } else if (says("was not back within")) {
      EXPECT_GT(client.interruptions, 0);
      ++coverage_->impatient;
    } else {
      EXPECT_EQ(options_.resume_wait, absl::ZeroDuration());
      ++coverage_->ended_at_once;
    }
  }

  void CheckScores(const Client& client) {
    EXPECT_EQ(client.scores.has_value(), client.done->status.ok());
    if (absl::IsUnavailable(client.done->status)) CheckUnavailable(client);
    if (!client.scores) return;
    const std::vector<TokenId>& prompt = client.asked.prompt;
    ASSERT_EQ(client.scores->size(), prompt.size() - 1);
    ASSERT_EQ(client.best.size(), client.asked.sampling.logprobs > 0 ? prompt.size() - 1 : 0);
    uint64_t state = 0;
    for (size_t i = 0; i + 1 < prompt.size(); ++i) {
      state = FakeModel::Absorb(state, prompt[i]);
      ASSERT_EQ((*client.scores)[i], FakeModel::Score(state, prompt[i + 1])) << "position " << i;
      if (client.best.empty()) continue;
      ASSERT_EQ(client.best[i].logprob, (*client.scores)[i] / 2) << "position " << i;
    }
    ++coverage_->scored;
  }

  // The answer equals the pure function's: whole if it finished, else as far as it went.
  void CheckAnswer(const Client& client, int32_t choice) {
    SCOPED_TRACE(testing::Message() << "choice " << choice);
    const EngineRequest& asked = client.asked;
    const Answer& got = client.answers[choice];
    ASSERT_TRUE(got.finish.has_value());
    const int32_t tokens_max = std::min<int32_t>(
        asked.max_tokens, options_.context_tokens_max - static_cast<int32_t>(asked.prompt.size()));
    const bool whole = got.finish == FinishReason::kStop || got.finish == FinishReason::kLength;
    Answer expected;
    uint64_t state = FakeModel::Absorb(asked.prompt);
    while (!expected.finish && (whole || expected.tokens.size() < got.tokens.size())) {
      const TokenId token = FakeModel::Sample(state, client.done->seed, choice);
      ASSERT_GE(token, 0) << "the answer went on where no token could be sampled";
      state = FakeModel::Absorb(state, token);
      const bool stop_id = std::count(asked.stop_token_ids.begin(), asked.stop_token_ids.end(), token) > 0;
      if ((token == kEos && !asked.ignore_eos) || stop_id) {
        expected.text = tokenizer_.Decode(expected.tokens, /*skip_special=*/true);
        expected.tokens.push_back(token);
        expected.finish = FinishReason::kStop;
        break;
      }
      expected.tokens.push_back(token);
      expected.text = tokenizer_.Decode(expected.tokens, /*skip_special=*/true);
      if (const size_t stop = StopPosition(expected.text, asked.stop); stop != std::string::npos) {
        expected.text.resize(stop);
        expected.finish = FinishReason::kStop;
        ++coverage_->stopped;
      } else if (static_cast<int32_t>(expected.tokens.size()) == tokens_max) {
        expected.finish = FinishReason::kLength;
      }
    }
    EXPECT_EQ(got.tokens, expected.tokens);
    EXPECT_EQ(got.text, expected.text);
    if (whole) {
      EXPECT_EQ(got.finish, expected.finish);
    } else {
      EXPECT_FALSE(expected.finish.has_value()) << "an answer that was over did not finish";
    }
  }

  void CountCluster() {
    if (!cluster_) return;
    blocks_shared_ += cluster_->blocks_shared();
    coverage_->readmissions += cluster_->readmissions();
  }

  void CheckAtRest() {
    EXPECT_EQ(engine_->snapshot().kv_blocks_used, 0) << "KV blocks leaked";
    EXPECT_EQ(engine_->snapshot().sequences_running, 0);
    EXPECT_EQ(engine_->snapshot().requests_waiting, 0);
    EXPECT_EQ(engine_->next_tick(), absl::InfiniteDuration());
    for (const auto& [id, client] : clients_) EXPECT_TRUE(client.done.has_value()) << "request " << id;
    coverage_->preemptions += static_cast<int64_t>(engine_->snapshot().preemptions);
    CountCluster();
    EXPECT_EQ(engine_->snapshot().prefix_tokens_cached, blocks_shared_ * kKvBlockTokens);
    coverage_->forks += blocks_shared_;
  }

  std::mt19937_64 random_;
  Coverage* coverage_;
  FakeTokenizer tokenizer_;
  EngineOptions options_;
  std::optional<Engine> engine_;
  int arrivals_ = 0, losses_ = 0;  // of 1000 events
  int kv_blocks_ = 0;
  int64_t blocks_shared_ = 0;
  bool crowded_ = false;  // many long answers at once
  FakeCluster::Limits limits_;
  std::optional<FakeCluster> cluster_;
  Epoch epoch_;
  bool serving_ = false;
  bool other_bits_ = false;  // while a layout comes up that says so
  absl::Duration now_ = absl::Seconds(1);
  uint64_t last_request_ = 0;
  int32_t live_ = 0;  // requests that have not ended
  std::map<uint64_t, Client> clients_;
  std::deque<StepResult> results_;  // of steps that have run but are not reported yet
  std::deque<StepResult> stale_;    // of epochs that are over
};

TEST(ClusterSimulationTest, HundredsOfSeeds) {
  Coverage coverage;
  uint64_t first = 1, last = 400;
  if (const char* only = std::getenv("BELLWETHER_SIMULATION_SEED"))
    first = last = std::strtoull(only, nullptr, 10);
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation(seed, &coverage).Run();
    if (HasFailure()) return;
  }
  std::string counts;
  for (const auto& [name, count] :
       std::map<std::string, int64_t>{{"preemptions", coverage.preemptions},
                                      {"readmissions", coverage.readmissions},
                                      {"shared blocks", coverage.forks},
                                      {"prompts that began with known blocks", coverage.known_prompts},
                                      {"layouts lost", coverage.layouts_lost},
                                      {"layouts replaced", coverage.layouts_replaced},
                                      {"resumed", coverage.resumed},
                                      {"ended as fruitless", coverage.fruitless},
                                      {"ended as service was away too long", coverage.impatient},
                                      {"ended by other bits", coverage.other_bits},
                                      {"ended with their layout", coverage.ended_at_once},
                                      {"too large", coverage.too_large},
                                      {"too long for a message", coverage.too_long},
                                      {"failed samples", coverage.failed},
                                      {"cancelled", coverage.cancelled},
                                      {"deadlines", coverage.deadlines},
                                      {"stop strings", coverage.stopped},
                                      {"finished", coverage.finished},
                                      {"scored", coverage.scored},
                                      {"steps in flight", coverage.deepest}}) {
    counts += name + " " + std::to_string(count) + ", ";
    if (first != last) {
      EXPECT_GT(count, name == "steps in flight" ? 3 : 20) << name;
    }
  }
  RecordProperty("coverage", counts);
  std::printf("%s\n", counts.c_str());
}

}  // namespace
}  // namespace bellwether
