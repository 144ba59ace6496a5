#include "cli/batch/batch.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/batch/batch_input.h"
#include "cli/batch/batch_output.h"
#include "cli/batch/batch_task.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/clock.h"
#include "common/fast_hash.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100), kLongestPause = absl::Seconds(5);
constexpr absl::Duration kLook = absl::Milliseconds(100);
// Of a request that fails once it has begun, or for a reason that is not known to pass: perhaps it is the
// request that ends the workers.
constexpr int kTriesMax = 5;

uint64_t Hash(std::string_view text, uint64_t seed) {
  return FastHash(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()), seed);
}

int64_t Now() { return absl::ToInt64Nanoseconds(Clock::Real()->Now()); }

template <typename T>
std::string Show(const std::optional<T>& value) {
  return value.has_value() ? absl::StrCat(*value) : "-";
}

// What, besides a line's own text, decides its answer.
uint64_t Fingerprint(const BatchOptions& options, const GenerationOptions& o, const ServedModel& model) {
  std::vector<std::string> parts = {model.model_id,
                                    model.weights,
                                    model.chat_template,
                                    options.system,
                                    Show(o.max_tokens),
                                    Show(o.min_tokens),
                                    Show(o.temperature),
                                    Show(o.top_k),
                                    Show(o.top_p),
                                    Show(o.min_p),
                                    Show(o.repetition_penalty),
                                    Show(o.presence_penalty),
                                    Show(o.frequency_penalty),
                                    Show(o.seed),
                                    o.ignore_eos ? "ignore" : ""};
  for (const auto& [token, bias] : o.logit_bias) parts.push_back(absl::StrCat(token, ":", bias));
  for (const std::string& stop : o.stop) parts.push_back(stop);
  parts.push_back(absl::StrJoin(o.stop_token_ids, ","));
  return Hash(absl::StrJoin(parts, absl::string_view("\0", 1)), 0);
}

struct TaskAnswer {
  std::vector<std::string> texts, finish_reasons;  // one a turn
  int64_t prompt_tokens = 0, generated_tokens = 0;

  Json::Object ToRecord(const BatchTask& task) const {
    Json::Object record = task.ids;
    record.emplace_back(task.several ? "outputs" : "output",
                        task.several ? Json(texts) : Json(texts.front()));
    record.emplace_back("finish_reason", task.several ? Json(finish_reasons) : Json(finish_reasons.front()));
    record.emplace_back(
        "usage", Json::object({{"prompt_tokens", prompt_tokens}, {"generated_tokens", generated_tokens}}));
    return record;
  }
};

class Batch {
 public:
  Batch(const BatchOptions& options, Session& session, BatchInput input, BatchOutput& output)
      : options_(options),
        session_(session),
        generation_(session.WithDefaults(options.generation)),
        fingerprint_(Fingerprint(options, generation_, session.model())),
        output_(output),
        lines_(input.lines()),
        input_(std::move(input)),
        heard_at_(Now()) {}

  absl::Status Run();

 private:
  struct Job {
    BatchLine line;
    uint64_t key = 0;
  };

  void AnswerLines();
  std::optional<Job> NextJob();
  absl::Status FillWindow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // InvalidArgument: this line can never be answered.
  absl::StatusOr<Json::Object> Answer(const BatchLine& line);
  absl::Status AnswerTurn(const BatchTask& task, const std::vector<ChatMessage>& messages, uint64_t seed,
                          TaskAnswer& answer);
  absl::Status TryTurn(const BatchTask& task, const std::vector<ChatMessage>& messages,
                       const GenerationOptions& generation, TaskAnswer& answer, bool& began);
  // Whether a request that has failed may be tried again, after a pause that grows. `failures`: of those that
  // count.
  bool WaitToTryAgain(const absl::Status& status, int tries, int failures);
  // FailedPrecondition: what is served now is not what the answers are keyed by.
  absl::Status CheckModel();
  void Fail(const absl::Status& status);
  void FailLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  void ShowProgress(absl::Duration begin, StatusLine& line) const;
  absl::Status Outcome(absl::Duration begin);

  const BatchOptions& options_;
  Session& session_;
  const GenerationOptions generation_;
  const uint64_t fingerprint_;
  BatchOutput& output_;
  const int64_t lines_;

  Mutex mutex_;
  BatchInput input_ ABSL_GUARDED_BY(mutex_);
  std::vector<Job> window_ ABSL_GUARDED_BY(mutex_);  // the next is the last
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::string first_refusal_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> failed_ = false;
  std::atomic<int64_t> before_ = 0, answered_ = 0, refused_ = 0, tokens_ = 0;
  std::atomic<int64_t> heard_at_;  // nanoseconds of the clock when anything last came from the coordinator
};

void Batch::Fail(const absl::Status& status) {
  MutexLock lock(&mutex_);
  FailLocked(status);
}

void Batch::FailLocked(const absl::Status& status) {
  status_.Update(status);
  failed_ = true;
  output_.Close();
}

// Takes lines that have no answer yet. Windows without any are passed over.
absl::Status Batch::FillWindow() {
  while (window_.empty()) {
    BW_ASSIGN_OR_RETURN(std::vector<BatchLine> lines, input_.NextWindow());
    if (lines.empty()) return absl::OkStatus();
    std::vector<int64_t> expected;
    for (BatchLine& line : lines) {
      const uint64_t key = Hash(line.text, fingerprint_);
      BW_ASSIGN_OR_RETURN(const bool answered, output_.Has(line.number, key));
      if (answered) {
        ++before_;
        continue;
      }
      expected.push_back(line.number);
      window_.push_back({std::move(line), key});
    }
    std::sort(expected.begin(), expected.end());
    for (const int64_t line : expected) output_.Expect(line);
    std::reverse(window_.begin(), window_.end());
  }
  return absl::OkStatus();
}

std::optional<Batch::Job> Batch::NextJob() {
  MutexLock lock(&mutex_);
  if (failed() || StopRequested()) return std::nullopt;
  if (const absl::Status filled = FillWindow(); !filled.ok()) FailLocked(filled);
  if (window_.empty() || failed()) return std::nullopt;
  Job job = std::move(window_.back());
  window_.pop_back();
  return job;
}

bool Batch::WaitToTryAgain(const absl::Status& status, int tries, int failures) {
  const absl::Duration silence = absl::Nanoseconds(Now() - heard_at_);
  if (failed() || absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
      absl::IsCancelled(status) || failures >= kTriesMax ||
      silence > absl::Seconds(options_.session.cluster.give_up_seconds)) {
    return false;
  }
  const absl::Duration pause = std::min(kFirstPause * (1 << std::min(tries, 10)), kLongestPause);
  return !StopCancellation()->WaitFor(pause);
}

absl::Status Batch::CheckModel() {
  const absl::StatusOr<ServedModel> now = session_.client().GetModel();
  if (!now.ok()) return absl::OkStatus();  // it is tried again
  const ServedModel& before = session_.model();
  if (now->model_id == before.model_id && now->weights == before.weights &&
      now->chat_template == before.chat_template) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError("another model is served now than when this batch began");
}

absl::Status Batch::TryTurn(const BatchTask& task, const std::vector<ChatMessage>& messages,
                            const GenerationOptions& generation, TaskAnswer& answer, bool& began) {
  std::string text, finish_reason;
  AnswerUsage usage;
  const auto on_chunk = [&](const AnswerChunk& chunk) {
    began = true;
    heard_at_ = Now();
    tokens_ += static_cast<int64_t>(chunk.tokens.size());
    text += chunk.text;
    if (!chunk.finish_reason.empty()) finish_reason = chunk.finish_reason;
    if (chunk.usage.has_value()) usage = *chunk.usage;
    return !failed();
  };
  const CallOptions call = {.cancellation = StopCancellation()};
  BW_RETURN_IF_ERROR(task.prompt.has_value()
                         ? session_.client().Generate({.text = task.prompt}, generation, call, on_chunk)
                         : session_.client().Chat(messages, generation, call, on_chunk));
  if (finish_reason != "stop" && finish_reason != "length")
    return absl::UnavailableError(absl::StrCat("the answer ended as \"", finish_reason, "\""));
  answer.texts.push_back(std::move(text));
  answer.finish_reasons.push_back(std::move(finish_reason));
  answer.prompt_tokens += usage.prompt_tokens;
  answer.generated_tokens += usage.generated_tokens;
  return absl::OkStatus();
}

absl::Status Batch::AnswerTurn(const BatchTask& task, const std::vector<ChatMessage>& messages, uint64_t seed,
                               TaskAnswer& answer) {
  GenerationOptions generation = generation_;
  generation.seed = seed;
  int failures = 0;
  for (int tries = 1;; ++tries) {
    bool began = false;
    absl::Status status = TryTurn(task, messages, generation, answer, began);
    if (status.ok()) return status;
    const bool passes = absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
    failures += began || !passes ? 1 : 0;
    if (!WaitToTryAgain(status, tries, failures)) return status;
    BW_RETURN_IF_ERROR(CheckModel());
  }
}

absl::StatusOr<Json::Object> Batch::Answer(const BatchLine& line) {
  BW_ASSIGN_OR_RETURN(const BatchTask task, ParseBatchTask(line.text));
  std::vector<ChatMessage> messages = task.history;
  const bool has_system = !messages.empty() && messages.front().role == "system";
  if (!options_.system.empty() && !has_system) messages.insert(messages.begin(), {"system", options_.system});
  TaskAnswer answer;
  const size_t turns = task.prompt.has_value() ? 1 : task.turns.size();
  for (size_t turn = 0; turn < turns; ++turn) {
    if (!task.prompt.has_value()) messages.push_back({"user", task.turns[turn]});
    const uint64_t seed = Hash(absl::StrCat(line.number, " ", turn), generation_.seed.value_or(0));
    BW_RETURN_IF_ERROR(AnswerTurn(task, messages, seed, answer));
    messages.push_back({"assistant", answer.texts.back()});
  }
  return answer.ToRecord(task);
}

void Batch::AnswerLines() {
  while (const std::optional<Job> job = NextJob()) {
    absl::StatusOr<Json::Object> record = Answer(job->line);
    const bool refused = absl::IsInvalidArgument(record.status());
    const std::string reason(record.status().message());
    if (refused) record = Json::Object{{"error", reason}};
    if (!record.ok()) {
      return Fail(Annotate(
          session_.Explain(record.status()),
          absl::StrCat("line ", job->line.number, " (the same command goes on where this one ends)")));
    }
    if (const absl::Status written = output_.Write(job->line.number, job->key, *record); !written.ok())
      return Fail(written);
    if (!refused) {
      ++answered_;
      continue;
    }
    MutexLock lock(&mutex_);
    if (++refused_ == 1) first_refusal_ = absl::StrCat("line ", job->line.number, ": ", reason);
  }
}

void Batch::ShowProgress(absl::Duration begin, StatusLine& line) const {
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  const int64_t now = answered_ + refused_, left = lines_ - before_ - now;
  std::string text = absl::StrFormat("%d of %d lines, %.1f tokens/s", before_ + now, lines_,
                                     static_cast<double>(tokens_) / std::max(seconds, 1e-3));
  if (now > 0) {
    const absl::Duration rest = absl::Seconds(seconds * static_cast<double>(left) / static_cast<double>(now));
    absl::StrAppend(&text, ", about ", absl::FormatDuration(absl::Ceil(rest, absl::Seconds(1))), " left");
  }
  line.Show(text);
}

absl::Status Batch::Outcome(absl::Duration begin) {
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  std::fprintf(
      stderr, "%s\n",
      absl::StrFormat("[%d lines answered, %d before, %d refused; %d tokens in %.1f s, %.1f tokens/s]",
                      answered_.load(), before_.load(), refused_.load(), tokens_.load(), seconds,
                      static_cast<double>(tokens_) / std::max(seconds, 1e-3))
          .c_str());
  MutexLock lock(&mutex_);
  if (StopRequested()) return absl::CancelledError("the same command goes on where this one ends");
  if (!status_.ok()) return status_;
  const int64_t refused = refused_ + output_.old_errors();
  if (refused == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(refused, refused == 1 ? " line" : " lines",
                   " cannot be answered and stand in the output with \"error\"",
                   first_refusal_.empty() ? "" : "; the first of now is ", first_refusal_));
}

absl::Status Batch::Run() {
  const absl::Duration begin = Clock::Real()->Now();
  std::atomic<int> running = options_.concurrency;
  Cancellation done;
  std::vector<std::thread> threads;
  threads.reserve(options_.concurrency + 1);
  for (int i = 0; i < options_.concurrency; ++i) {
    threads.emplace_back([&] {
      AnswerLines();
      if (--running == 0) done.Cancel();
    });
  }
  threads.emplace_back([&] {
    const absl::Status status = session_.Supervise([&] { return done.cancelled(); });
    if (!status.ok()) Fail(status);
  });
  StatusLine line;
  const absl::Duration pace = line.rewritten() ? absl::Seconds(1) : absl::Seconds(10);
  for (absl::Duration next = begin + pace; !done.WaitFor(kLook);) {
    if (StopRequested()) output_.Close();
    if (Clock::Real()->Now() < next) continue;
    ShowProgress(begin, line);
    next += pace;
  }
  line.Clear();
  for (std::thread& thread : threads) thread.join();
  return Outcome(begin);
}

absl::Status Check(const BatchOptions& options) {
  if (options.generation.n.value_or(1) != 1 || options.generation.logprobs.has_value()) {
    return absl::InvalidArgumentError("a batch writes one answer a line: leave out --n and --logprobs");
  }
  for (const std::string& stop : options.generation.stop)
    BW_RETURN_IF_ERROR(CheckUtf8("a stop string", stop));
  return CheckUtf8("the system message", options.system);
}

// Refuses options that no line could be answered with, before any line gets a record that says so: asks for
// one token and takes none.
absl::Status CheckGeneration(Session& session, const GenerationOptions& generation) {
  const absl::Status status = session.client().Generate(
      {.token_ids = std::vector<TokenId>{0}}, session.WithDefaults(generation),
      {.cancellation = StopCancellation()}, [](const AnswerChunk&) { return false; });
  return absl::IsInvalidArgument(status) ? status : absl::OkStatus();
}

}  // namespace

absl::Status RunBatch(const BatchOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(Check(options));
  const auto input_order =
      options.in_order ? BatchInput::Order::kAsWritten : BatchInput::Order::kLongestFirst;
  BW_ASSIGN_OR_RETURN(BatchInput input, BatchInput::Open(options.input, input_order));
  const auto order = options.in_order ? BatchOutput::Order::kAsAsked : BatchOutput::Order::kAsAnswered;
  BW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchOutput> output, BatchOutput::Open(options.output, order));
  if (input.IsSameFile(output->fd()))
    return absl::InvalidArgumentError("--input and --output are the same file");
  SessionOptions opening = options.session;
  // A private one is supervised: answers have as much patience with it as the batch.
  opening.cluster.resume_wait = absl::Seconds(opening.cluster.give_up_seconds);
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(opening));
  BW_RETURN_IF_ERROR(CheckGeneration(session, options.generation));
  BW_RETURN_IF_ERROR(Batch(options, session, std::move(input), *output).Run());
  return session.Close();
}

}  // namespace bellwether
