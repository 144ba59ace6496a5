#include "coordinator/engine.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/random.h"
#include "common/status.h"
#include "common/step_bytes.h"
#include "coordinator/request_error.h"
#include "coordinator/scheduler.h"
#include "coordinator/stop_checker.h"
#include "model/config.h"

namespace bellwether {
namespace {

// What AdmissionBytesMax counts on.
static_assert(kVocabMax <= 1 << (7 * kTokenBytesMax));

// A request that has run in so many epochs in a row, without getting on in any, may be what ends them.
constexpr int32_t kFruitlessEpochsMax = 3;

struct Choice {
  SequenceId sequence;
  StopChecker checker;
  bool finished = false;
};

struct Request {
  EngineRequest asked;
  absl::Duration arrived;
  std::optional<absl::Duration> first_step;
  std::optional<absl::Duration> first_token;
  std::vector<Choice> choices;  // of a score request: one, whose checker is not used
  int32_t unfinished = 0;
  std::vector<float> scores;       // of prompt[i + 1]
  std::vector<TokenLogprob> best;  // likewise, where asked for
  int32_t scored = 0;              // scores that have come
  int32_t interruptions = 0;
  int32_t cached_prompt_tokens = 0;
  int32_t fruitless_epochs = 0;  // in which it ran, since it last got on
};

// There was a layout, and there is none.
struct Outage {
  absl::Duration since;
  std::string reason;
};

}  // namespace

struct Engine::State {
  State(EngineOptions options_in, const Tokenizer* tokenizer_in)
      : options(std::move(options_in)),
        tokenizer(tokenizer_in),
        scheduler(
            {options.step_tokens_max, options.sequences_max, options.step_bytes_max, options.prefix_cache}) {}

  void On(RequestArrived event);
  void On(RequestCancelled event);
  void On(const StepFinished& event);
  void On(LayoutUp event);
  void On(const LayoutDown& event);
  void On(LayoutClosing event);
  void On(DrainRequested) { draining = true; }
  void On(Tick) {}

  absl::Status Admissible(const EngineRequest& request) const;
  absl::Status CheckBytes(const EngineRequest& request) const;
  std::vector<TokenId> EndingTokens(const EngineRequest& request) const;
  uint64_t SharersOf(const std::string& client);
  uint64_t DrawSeed();
  void AddSequences(Request* request);
  void TakeScores(Request* request, int32_t position, const StepOutput& output);
  void TakeToken(Request* request, Choice* choice, const StepOutput& output);
  void EndEarly(Request* request, FinishReason reason, const absl::Status& status);
  void EndAll(const absl::Status& status);
  void End(Request* request, const absl::Status& status);
  void ExpireDeadlines();
  void Interrupt(Request* request, bool planned);
  void EndBegun();
  absl::Duration PatienceEnds() const;
  void EndImpatient();
  void Schedule();
  void FailTooLarge(SequenceId sequence);
  Usage UsageOf(const Request& request) const;

  const EngineOptions options;
  const Tokenizer* const tokenizer;
  Scheduler scheduler;
  bool serving = false;
  bool draining = false;
  std::string closing;  // why no request is taken in this epoch any more; empty: they are
  std::optional<Outage> outage;
  Epoch epoch;
  std::string reporter;  // of the epoch's results
  absl::Duration now;
  // By id, so that whatever ends all of them does it in an order that can be replayed.
  std::map<RequestId, Request> requests;
  int32_t requests_started = 0;  // those of `requests` that have been in a step
  uint64_t requests_admitted = 0;
  uint64_t interruptions = 0;
  absl::flat_hash_map<SequenceId, std::pair<Request*, int32_t>> choice_of;  // request and index of its choice
  std::set<std::pair<absl::Duration, RequestId>> deadlines;
  uint64_t last_sequence = 0;
  uint64_t seeds_drawn = 0;
  absl::flat_hash_map<std::string, uint64_t> clients;  // that have had requests, numbered from 1
  std::vector<Action> actions;
};

Engine::Engine(EngineOptions options, const Tokenizer* tokenizer)
    : state_(std::make_unique<State>(std::move(options), tokenizer)) {}
Engine::~Engine() = default;

std::vector<Action> Engine::Handle(Event event, absl::Duration now) {
  BW_CHECK_GE(now, state_->now);
  state_->now = now;
  std::visit([this]<typename E>(E&& e) { state_->On(std::forward<E>(e)); }, std::move(event));
  state_->ExpireDeadlines();
  state_->EndImpatient();
  state_->Schedule();
  return std::exchange(state_->actions, {});
}

EngineSnapshot Engine::snapshot() const {
  const Scheduler& scheduler = state_->scheduler;
  return {.serving = state_->serving,
          .draining = state_->draining,
          .requests_waiting = static_cast<int32_t>(state_->requests.size()) - state_->requests_started,
          .requests_running = state_->requests_started,
          .sequences_running = scheduler.running(),
          .requests_admitted = state_->requests_admitted,
          .kv_blocks_total = scheduler.ledger().total(),
          .kv_blocks_used = scheduler.ledger().used(),
          .prefix_tokens = scheduler.tokens_admitted(),
          .prefix_tokens_cached = scheduler.tokens_shared(),
          .steps_in_flight = scheduler.steps_in_flight(),
          .preemptions = scheduler.preemptions(),
          .interruptions = state_->interruptions};
}

bool Engine::idle() const { return state_->requests.empty(); }

absl::Duration Engine::next_tick() const {
  const std::set<std::pair<absl::Duration, RequestId>>& deadlines = state_->deadlines;
  return std::min(deadlines.empty() ? absl::InfiniteDuration() : deadlines.begin()->first,
                  state_->PatienceEnds());
}

// -- Arrival

void Engine::State::On(RequestArrived event) {
  EngineRequest& asked = event.request;
  if (absl::Status status = Admissible(asked); !status.ok()) {
    Usage usage;
    usage.prompt_tokens = static_cast<int32_t>(asked.prompt.size());
    actions.push_back(RequestDone{asked.id, std::move(status), usage, asked.seed.value_or(0)});
    return;
  }
  asked.sampling.seed = asked.seed ? *asked.seed : DrawSeed();
  asked.sampling.ending_tokens = EndingTokens(asked);
  const RequestId id = asked.id;
  const auto [at, added] = requests.emplace(id, Request{std::move(asked), now});
  BW_CHECK(added);
  ++requests_admitted;
  Request& request = at->second;
  if (request.asked.deadline != absl::InfiniteDuration()) deadlines.emplace(request.asked.deadline, id);
  if (request.asked.score && request.asked.prompt.size() == 1) {
    actions.push_back(EmitScores{id, {}, {}});
    End(&request, absl::OkStatus());
    return;
  }
  AddSequences(&request);
}

absl::Status Engine::State::Admissible(const EngineRequest& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int32_t context = options.context_tokens_max;
  if (draining) return absl::UnavailableError("the server is shutting down");
  if (!closing.empty()) return absl::UnavailableError(closing);
  if (!serving) {
    return absl::UnavailableError(
        absl::StrCat("not serving: ", outage ? outage->reason : "the workers are not ready"));
  }
  if (static_cast<int64_t>(requests.size()) >=
      int64_t{options.sequences_max} + options.requests_waiting_max) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%d requests are waiting or running, no more are taken; try again later", requests.size()));
  }
  if (prompt == 0) return absl::InvalidArgumentError("the prompt holds no token");
  if (request.choices < 1 || (request.score && request.choices != 1)) {
    return absl::InvalidArgumentError(absl::StrFormat("%d choices", request.choices));
  }
  if (!request.score && request.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_tokens is %d, at least 1 is needed", request.max_tokens));
  }
  if (prompt > context) {
    return WithCode(absl::InvalidArgumentError(
                        absl::StrFormat("the prompt has %d tokens, the context holds %d", prompt, context)),
                    kContextLengthExceeded);
  }
  if (!request.score && prompt == context) {
    return WithCode(
        absl::InvalidArgumentError(absl::StrFormat(
            "the prompt has %d tokens, the context holds %d: no room for an answer", prompt, context)),
        kContextLengthExceeded);
  }
  const int32_t blocks = KvBlocksFor(static_cast<int32_t>(request.score ? prompt - 1 : prompt));
  if (blocks > scheduler.ledger().total()) {
    return WithCode(absl::ResourceExhaustedError(absl::StrFormat(
                        "the prompt of %d tokens needs %d KV blocks of %d tokens, the workers hold %d",
                        prompt, blocks, kKvBlockTokens, scheduler.ledger().total())),
                    kContextLengthExceeded);
  }
  return CheckBytes(request);
}

// A sequence must fit in a message with all its tokens: it may have to be admitted again when it has them.
absl::Status Engine::State::CheckBytes(const EngineRequest& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t output =
      request.score ? 0 : std::min<int64_t>(request.max_tokens, options.context_tokens_max - prompt);
  SamplingOptions sampling = request.sampling;
  sampling.ending_tokens = EndingTokens(request);
  const int64_t bytes = AdmissionBytesMax(prompt + output, sampling);
  if (bytes <= scheduler.admissions_bytes_max()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("a prompt of %d tokens with max_tokens %d and %d entries of logit_bias may take %d "
                      "bytes of a message to the workers, allowed are %d: ask for fewer tokens",
                      prompt, output, sampling.logit_bias.size(), bytes, scheduler.admissions_bytes_max()));
}

std::vector<TokenId> Engine::State::EndingTokens(const EngineRequest& request) const {
  std::vector<TokenId> ending = request.stop_token_ids;
  if (!request.ignore_eos) ending.insert(ending.end(), options.eos.begin(), options.eos.end());
  std::sort(ending.begin(), ending.end());
  ending.erase(std::unique(ending.begin(), ending.end()), ending.end());
  return ending;
}

// Clients with names share KV blocks with themselves alone: how long an answer takes, and what its usage
// says, tells who else has asked the same.
uint64_t Engine::State::SharersOf(const std::string& client) {
  if (client.empty()) return 0;
  return clients.try_emplace(client, clients.size() + 1).first->second;
}

uint64_t Engine::State::DrawSeed() {
  const uint64_t drawn = seeds_drawn++;
  const auto words =
      Philox4x32({static_cast<uint32_t>(drawn), static_cast<uint32_t>(drawn >> 32), 0u, 0u},
                 {static_cast<uint32_t>(options.seed), static_cast<uint32_t>(options.seed >> 32)});
  return uint64_t{words[0]} << 32 | words[1];
}

void Engine::State::AddSequences(Request* request) {
  const EngineRequest& asked = request->asked;
  const auto prompt = static_cast<int32_t>(asked.prompt.size());
  StopChecker::Options stops{.ending_tokens = asked.sampling.ending_tokens,
                             .stop = asked.stop,
                             .tokens_min = asked.sampling.min_tokens,
                             .tokens_max = std::min(asked.max_tokens, options.context_tokens_max - prompt)};
  if (asked.score) {
    stops.tokens_max = 1;
    request->scores.resize(prompt - 1);
    if (asked.sampling.logprobs > 0) request->best.resize(prompt - 1);
  }
  request->unfinished = asked.choices;
  for (int32_t choice = 0; choice < asked.choices; ++choice) {
    const SequenceId id{++last_sequence};
    request->choices.push_back({id, StopChecker(tokenizer, stops)});
    choice_of.emplace(id, std::pair(request, choice));
    Admission admission{.sequence = id,
                        .choice = choice,
                        .tokens = asked.prompt,
                        .prompt_length = prompt,
                        .score = asked.score,
                        .sampling = asked.sampling};
    scheduler.Add(/*group=*/asked.id.value, std::move(admission), SharersOf(asked.client));
  }
}

// -- Results

void Engine::State::On(const StepFinished& event) {
  const StepResult& result = event.result;
  if (!serving || result.epoch != epoch) return;
  absl::StatusOr<std::vector<Scheduler::Output>> outputs = scheduler.Finish(result);
  if (!outputs.ok()) {
    const absl::Status reason = Annotate(outputs.status(), reporter);
    EndAll(absl::UnavailableError(reason.message()));
    actions.push_back(FailEpoch{epoch, reason});
    return;
  }
  for (const Scheduler::Output& output : *outputs) {
    const auto at = choice_of.find(output.sequence);
    if (at == choice_of.end()) continue;  // its request ended with another of its choices
    const auto [request, choice] = at->second;
    const StepOutput& value = result.outputs[output.index];
    if (!value.error.empty()) {
      EndEarly(request, FinishReason::kError, absl::InternalError(value.error));
    } else if (request->asked.score) {
      TakeScores(request, output.position, value);
    } else {
      TakeToken(request, &request->choices[choice], value);
    }
  }
}

void Engine::State::TakeScores(Request* request, int32_t position, const StepOutput& output) {
  // After a preemption or an outage chunks come again: with the same values, unless other bits are computed,
  // and then all of them do.
  std::copy(output.scores.begin(), output.scores.end(), request->scores.begin() + position);
  std::copy(output.top.begin(), output.top.end(),
            request->best.begin() + (request->best.empty() ? 0 : position));
  const int32_t scored = position + static_cast<int32_t>(output.scores.size());
  if (scored > request->scored) {
    request->scored = scored;
    request->fruitless_epochs = 0;
  }
  if (request->scored < static_cast<int32_t>(request->scores.size())) return;
  scheduler.Remove(request->choices[0].sequence);
  request->choices[0].finished = true;
  --request->unfinished;
  actions.push_back(EmitScores{request->asked.id, std::move(request->scores), std::move(request->best)});
  End(request, absl::OkStatus());
}

void Engine::State::TakeToken(Request* request, Choice* choice, const StepOutput& output) {
  if (!request->first_token) request->first_token = now;
  request->fruitless_epochs = 0;
  TokenChunk chunk;
  chunk.choice = static_cast<int32_t>(choice - request->choices.data());
  chunk.index = choice->checker.tokens();
  chunk.tokens = {output.token};
  if (request->asked.sampling.logprobs >= 0) chunk.logprobs = {output};
  StopChecker::Verdict verdict = choice->checker.Push(output.token);
  chunk.text = std::move(verdict.text);
  chunk.finish = verdict.finish;
  chunk.ending_token = verdict.ending_token;
  actions.push_back(EmitTokens{request->asked.id, std::move(chunk)});
  if (!verdict.finish) {
    scheduler.Append(choice->sequence, output.token);
    return;
  }
  scheduler.Remove(choice->sequence);
  choice->finished = true;
  if (--request->unfinished == 0) End(request, absl::OkStatus());
}

// -- Ends

void Engine::State::On(RequestCancelled event) {
  const auto at = requests.find(event.id);
  if (at == requests.end()) return;  // it has just ended
  EndEarly(&at->second, FinishReason::kCancelled, absl::CancelledError("cancelled by the client"));
}

void Engine::State::ExpireDeadlines() {
  while (!deadlines.empty() && deadlines.begin()->first <= now) {
    Request& request = requests.at(deadlines.begin()->second);
    EndEarly(&request, FinishReason::kDeadline,
             absl::DeadlineExceededError(absl::StrCat("the request's deadline passed after ",
                                                      absl::FormatDuration(now - request.arrived))));
  }
}

// Choices that have not finished get their last chunk: the text that was held back and the reason.
void Engine::State::EndEarly(Request* request, FinishReason reason, const absl::Status& status) {
  for (size_t i = 0; i < request->choices.size(); ++i) {
    Choice& choice = request->choices[i];
    if (choice.finished) continue;
    scheduler.Remove(choice.sequence);
    if (request->asked.score) continue;
    TokenChunk chunk;
    chunk.choice = static_cast<int32_t>(i);
    chunk.index = choice.checker.tokens();
    chunk.text = choice.checker.Flush();
    chunk.finish = reason;
    actions.push_back(EmitTokens{request->asked.id, std::move(chunk)});
  }
  End(request, status);
}

void Engine::State::End(Request* request, const absl::Status& status) {
  const RequestId id = request->asked.id;
  actions.push_back(RequestDone{id, status, UsageOf(*request), request->asked.sampling.seed});
  deadlines.erase({request->asked.deadline, id});
  for (const Choice& choice : request->choices) choice_of.erase(choice.sequence);
  if (request->first_step) --requests_started;
  requests.erase(id);
  if (requests.empty()) {
    BW_CHECK_EQ(scheduler.sequences(), 0);
    BW_CHECK_EQ(scheduler.ledger().used(), 0);
  }
}

Usage Engine::State::UsageOf(const Request& request) const {
  Usage usage;
  usage.admitted = true;
  usage.prompt_tokens = static_cast<int32_t>(request.asked.prompt.size());
  for (const Choice& choice : request.choices) usage.generated_tokens += choice.checker.tokens();
  usage.cached_prompt_tokens = request.cached_prompt_tokens;
  usage.interruptions = request.interruptions;
  usage.queued = request.first_step.value_or(now) - request.arrived;
  if (request.first_token) usage.time_to_first_token = *request.first_token - request.arrived;
  usage.total = now - request.arrived;
  return usage;
}

// -- Layouts

void Engine::State::On(LayoutUp event) {
  epoch = event.epoch;
  reporter = std::move(event.reporter);
  closing.clear();
  serving = true;
  if (event.other_bits) EndBegun();
  outage.reset();
  // Requests that are here are prefilled again from their tokens.
  scheduler.Start(event.epoch, event.kv_blocks, event.stages, event.step_tokens);
}

void Engine::State::On(const LayoutDown& event) {
  if (!serving || event.epoch != epoch) return;
  if (options.resume_wait <= absl::ZeroDuration()) {
    return EndAll(absl::UnavailableError(event.reason.message()));
  }
  serving = false;
  closing.clear();
  outage = Outage{now, std::string(event.reason.message())};
  for (auto at = requests.begin(); at != requests.end();) Interrupt(&(at++)->second, event.planned);
  scheduler.Stop();
}

// The scheduler still knows who runs.
void Engine::State::Interrupt(Request* request, bool planned) {
  ++interruptions;
  ++request->interruptions;
  const bool runs = std::any_of(request->choices.begin(), request->choices.end(),
                                [this](const Choice& choice) { return scheduler.runs(choice.sequence); });
  if (runs && !planned) ++request->fruitless_epochs;
  if (request->fruitless_epochs < kFruitlessEpochsMax) {
    actions.push_back(Interrupted{request->asked.id, outage->reason});
    return;
  }
  EndEarly(request, FinishReason::kError,
           absl::UnavailableError(absl::StrFormat("%s; the request has run in %d epochs in a row without "
                                                  "getting on, and is not tried again",
                                                  outage->reason, kFruitlessEpochsMax)));
}

// The others begin in the new bits. Scores have not begun until all are there.
void Engine::State::EndBegun() {
  const std::string before = outage ? absl::StrCat(outage->reason, "; ") : "";
  const absl::Status status = absl::UnavailableError(absl::StrCat(
      before, "the workers that serve now compute other bits: an answer that has begun cannot go on"));
  for (auto at = requests.begin(); at != requests.end();) {
    Request& request = (at++)->second;
    if (request.first_token) EndEarly(&request, FinishReason::kError, status);
  }
}

// Infinite while there is nobody who waits for a layout.
absl::Duration Engine::State::PatienceEnds() const {
  return outage && !requests.empty() ? outage->since + options.resume_wait : absl::InfiniteDuration();
}

void Engine::State::EndImpatient() {
  if (now < PatienceEnds()) return;
  EndAll(absl::UnavailableError(absl::StrCat(outage->reason, "; service was not back within ",
                                             absl::FormatDuration(options.resume_wait))));
}

void Engine::State::On(LayoutClosing event) {
  if (serving && event.epoch == epoch) closing = std::move(event.reason);
}

void Engine::State::EndAll(const absl::Status& status) {
  serving = false;
  closing.clear();
  outage.reset();
  while (!requests.empty()) EndEarly(&requests.begin()->second, FinishReason::kError, status);
  scheduler.Stop();
}

// -- Steps

void Engine::State::Schedule() {
  while (true) {
    Scheduler::Next next = scheduler.NextStep();
    if (next.step) {
      for (const Admission& admission : next.step->admissions) {
        Request& request = *choice_of.at(admission.sequence).first;
        if (request.first_step) continue;
        request.first_step = now;
        request.cached_prompt_tokens = scheduler.tokens_shared(admission.sequence);
        ++requests_started;
      }
      actions.push_back(SendStep{*std::move(next.step)});
    } else if (next.too_large.empty()) {
      return;
    }
    for (const SequenceId sequence : next.too_large) FailTooLarge(sequence);
  }
}

void Engine::State::FailTooLarge(SequenceId sequence) {
  const auto at = choice_of.find(sequence);
  if (at == choice_of.end()) return;  // its request ended with another of its choices
  EndEarly(
      at->second.first, FinishReason::kError,
      absl::ResourceExhaustedError(absl::StrFormat(
          "%d tokens need %d KV blocks of %d tokens, the workers hold %d", scheduler.tokens(sequence).size(),
          scheduler.blocks_needed(sequence), kKvBlockTokens, scheduler.ledger().total())));
}

}  // namespace bellwether
