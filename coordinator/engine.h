#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/defaults.h"
#include "common/ids.h"
#include "common/step.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// The core of the coordinator: one single-threaded state machine, events in, actions out. No clock (events
// carry the time), no I/O, no threads: a whole cluster can be simulated from a seed.

// A validated request. Times are of the coordinator's monotonic clock.
struct EngineRequest {
  RequestId id;
  std::vector<TokenId> prompt;  // not empty
  bool score = false;           // log-probability of every given token; of the options only logprobs counts
  int32_t max_tokens = 0;       // generated at most, >= 1; the context limits it further
  int32_t choices = 1;
  SamplingOptions sampling;             // the engine fills in seed and ending_tokens
  std::optional<uint64_t> seed;         // absent: the engine draws one and reports it in RequestDone
  std::vector<TokenId> stop_token_ids;  // finish with `stop`; their text is not emitted
  bool ignore_eos = false;
  std::vector<std::string> stop;  // stop strings, not emitted; text is held back while one may be under way
  absl::Duration deadline = absl::InfiniteDuration();  // absolute
  std::string client;  // whose it is, by the name of his API key; empty: nobody is asked
};

enum class FinishReason { kStop, kLength, kCancelled, kDeadline, kError };

// Part of the answer of one choice. Tokens are all that were sampled, also the end-of-sequence or stop token
// that ends the answer and the tokens of a stop string: they were computed, have log-probabilities and count
// in the usage (as in Hugging Face's output). Only the text leaves the stop out. Tokens and text need not
// match one to one: text is held back until it is certain. A choice's chunks come in order, `index` strictly
// ascending; its last chunk may hold no token (cancelled, deadline, error).
struct TokenChunk {
  int32_t choice = 0;
  int32_t index = 0;  // of tokens[0] among the choice's generated tokens
  std::vector<TokenId> tokens;
  std::string text;                    // valid UTF-8
  std::vector<StepOutput> logprobs;    // one a token if asked for, else empty
  std::optional<FinishReason> finish;  // on the choice's last chunk
  bool ending_token = false;           // the last of `tokens` ends the choice: its text is not in `text`
};

struct Usage {
  bool admitted = false;  // else it was rejected, and what follows but the prompt is 0
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;    // of the first choice's: others had computed them when it began
  int32_t generated_tokens = 0;        // over all choices
  int32_t interruptions = 0;           // epochs that ended while it was here
  absl::Duration queued;               // arrival to the first step
  absl::Duration time_to_first_token;  // arrival to the first sampled token
  absl::Duration total;
};

// Events
// ----------------------------------------------------------------------------------------------------------
struct RequestArrived {
  EngineRequest request;
};
struct RequestCancelled {
  RequestId id;
};
struct StepFinished {
  StepResult result;
};
// Workers are loaded and linked: steps may be sent.
struct LayoutUp {
  Epoch epoch;
  int32_t kv_blocks = 0;                 // the least any worker can hold
  int32_t stages = 1;                    // steps kept in flight
  int32_t step_tokens = 0;               // of a step, at most; 0: as the engine's options have it
  std::string reporter = "the workers";  // who sends the results, for errors
  // Than the layout before: what has begun cannot go on as the same answer, and ends.
  bool other_bits = false;
};
// The epoch is over: a worker is lost or stuck, which `reason` names, or one has left or joined. Requests
// wait for the next layout, which computes them again from their tokens; then they go on where they were.
struct LayoutDown {
  Epoch epoch;
  absl::Status reason;
  bool planned = false;  // no request can have been the cause
};
// The epoch will end on purpose: refuse new requests, with `reason`, and finish those that are here.
struct LayoutClosing {
  Epoch epoch;
  std::string reason;
};
// SIGTERM: refuse new requests, finish those that are here.
struct DrainRequested {};
// Nothing but time has passed.
struct Tick {};
using Event = std::variant<RequestArrived, RequestCancelled, StepFinished, LayoutUp, LayoutDown,
                           LayoutClosing, DrainRequested, Tick>;

// Actions
// ---------------------------------------------------------------------------------------------------------
struct SendStep {
  Step step;
};  // to every worker
struct EmitTokens {
  RequestId request;
  TokenChunk chunk;
};
// Once, of prompt[1], prompt[2] ...
struct EmitScores {
  RequestId request;
  std::vector<float> logprobs;
  std::vector<TokenLogprob> best;  // the most likely token of each place, if sampling.logprobs > 0
};
// The request is not over, but has to wait until there is a layout again; `reason` says what has happened.
struct Interrupted {
  RequestId request;
  std::string reason;
};
// A result does not fit the step it answers: no stream can be trusted, so the engine has ended them and waits
// for a LayoutUp of another epoch.
struct FailEpoch {
  Epoch epoch;
  absl::Status reason;
};
// The request is over; nothing more follows. OK unless it failed; Cancelled, DeadlineExceeded, Unavailable (a
// lost worker, not serving, draining), ResourceExhausted (queue full) ... `choices` that had not finished are
// lost with it.
struct RequestDone {
  RequestId request;
  absl::Status status;
  Usage usage;
  uint64_t seed = 0;
};
using Action = std::variant<SendStep, EmitTokens, EmitScores, Interrupted, RequestDone, FailEpoch>;

struct EngineOptions {
  int32_t step_tokens_max = 512;       // token budget of a step: decoding sequences first, the rest prefill
  int32_t sequences_max = 256;         // running at once
  int32_t requests_waiting_max = 256;  // beyond as many as sequences_max: they wait while others run
  int32_t context_tokens_max = 2048;   // prompt and output of a sequence
  int64_t step_bytes_max = kControlMessageBytesMax;  // of an encoded step
  std::vector<TokenId> eos;                          // end a generation unless the request ignores them
  uint64_t seed = 0;         // seeds drawn for requests that bring none come from here
  bool prefix_cache = true;  // what requests begin with is not computed again while its KV blocks are there
  // How long requests wait for a layout when theirs is gone; zero: they end with it.
  absl::Duration resume_wait = kDefaultResumeWait;
};

// The engine from outside, for metrics and for the tests that drive it.
struct EngineSnapshot {
  bool serving = false;
  bool draining = false;
  int32_t requests_waiting = 0, requests_running = 0, sequences_running = 0;
  uint64_t requests_admitted = 0;
  int32_t kv_blocks_total = 0, kv_blocks_used = 0;
  uint64_t prefix_tokens = 0, prefix_tokens_cached = 0;  // as Scheduler::tokens_admitted, tokens_shared
  int32_t steps_in_flight = 0;
  uint64_t preemptions = 0;
  uint64_t interruptions = 0;  // of requests: each of them counts when an epoch ends
};

class Engine {
 public:
  // `tokenizer` may be null (token ids only: text stays empty) and outlives the engine.
  Engine(EngineOptions options, const Tokenizer* tokenizer);
  ~Engine();
  Engine(const Engine&) = delete;

  // Feeds one event that happened at `now` (never before the last one) and returns what is to be done, in
  // order.
  std::vector<Action> Handle(Event event, absl::Duration now);

  EngineSnapshot snapshot() const;
  bool idle() const;  // no request is here
  // When Tick is due at the latest: the earliest deadline of a request, or the end of their wait for a
  // layout.
  absl::Duration next_tick() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bellwether
