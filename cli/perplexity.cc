#include "cli/perplexity.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "cli/perplexity_windows.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/json.h"
#include "common/mutex.h"
#include "common/output.h"
#include "common/read_file.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

constexpr size_t kFileBytesMax = size_t{1} << 30;
constexpr int kDefaultStride = 512;  // of transformers' documentation
constexpr int kScoresAtOnce = 8;     // enough to keep the stages of a pipeline busy

struct Document {
  std::vector<TokenId> tokens;
  int64_t scored = 0;
  double sum = 0;  // of their log-probabilities
};

struct Job {
  size_t document = 0;
  ScoreWindow window;
};

// The "text" of each line, if the first is such an object: then all have to be. Else nothing.
absl::StatusOr<std::vector<std::string>> TextsOfLines(const std::string& text) {
  std::vector<std::string> texts;
  int64_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    const absl::StatusOr<Json> json = ParseJson({line.data(), line.size()});
    if (!json.ok() || !(*json)["text"].is_string()) {
      if (texts.empty()) return texts;
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " is no object with \"text\", as those before it are"));
    }
    texts.push_back((*json)["text"].text());
  }
  return texts;
}

absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kFileBytesMax));
  const std::string text(WithoutByteOrderMark(bytes));
  BW_RETURN_IF_ERROR(CheckUtf8("the text", text));
  BW_ASSIGN_OR_RETURN(std::vector<std::string> texts, TextsOfLines(text));
  if (texts.empty()) texts.push_back(text);
  return texts;
}

// exp(-mean log p); null where nothing was scored.
Json Perplexity(double sum, int64_t scored) {
  return scored > 0 ? Json(std::exp(-sum / static_cast<double>(scored))) : Json();
}

// Scores all windows, several at once, and adds them up in their order, so that the sums are the same every
// time.
absl::Status ScoreAll(Session& session, const std::vector<Job>& jobs, std::vector<Document>& documents) {
  std::vector<double> sums(jobs.size());
  std::atomic<size_t> next = 0, done = 0;
  Mutex mutex;
  absl::Status status;
  StatusLine line;
  const auto score = [&](const Job& job) -> absl::StatusOr<double> {
    const std::vector<TokenId>& tokens = documents[job.document].tokens;
    const ScoreWindow& window = job.window;
    BW_ASSIGN_OR_RETURN(
        const ScoreAnswer answer,
        session.client().Score(
            {.token_ids = std::vector<TokenId>(tokens.begin() + window.begin, tokens.begin() + window.end)},
            {.cancellation = StopCancellation()}));
    if (static_cast<int64_t>(answer.logprobs.size()) != window.end - window.begin - 1)
      return absl::InternalError("not as many log-probabilities as tokens came back");
    double sum = 0;
    for (int64_t token = window.scored_begin; token < window.end; ++token)
      sum += answer.logprobs[token - window.begin - 1];
    return sum;
  };
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      absl::StatusOr<double> sum = score(jobs[i]);
      MutexLock lock(&mutex);
      if (!sum.ok()) {
        status.Update(
            Annotate(session.Explain(sum.status()),
                     absl::StrCat("document ", jobs[i].document + 1, ", token ", jobs[i].window.begin)));
        next = jobs.size();
        return;
      }
      sums[i] = *sum;
      if (line.rewritten()) line.Show(absl::StrCat(++done, " of ", jobs.size(), " windows"));
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(kScoresAtOnce);
  for (int i = 0; i < kScoresAtOnce; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < jobs.size(); ++i) {
    Document& document = documents[jobs[i].document];
    document.sum += sums[i];
    document.scored += jobs[i].window.end - jobs[i].window.scored_begin;
  }
  return status;
}

absl::Status Print(const std::vector<Document>& documents, int window, int stride, bool json_wanted) {
  Json rows = Json::array();
  std::string text = absl::StrFormat("%10s %10s %10s %12s\n", "document", "tokens", "scored", "perplexity");
  Document all;
  int64_t tokens = 0;
  const auto add_row = [&text](const std::string& name, int64_t count, int64_t scored,
                               const Json& perplexity) {
    absl::StrAppendFormat(&text, "%10s %10d %10d %12s\n", name, count, scored,
                          perplexity.is_null() ? "-" : absl::StrFormat("%.4f", perplexity.get<double>()));
  };
  for (size_t i = 0; i < documents.size(); ++i) {
    const Document& document = documents[i];
    const auto count = static_cast<int64_t>(document.tokens.size());
    const Json perplexity = Perplexity(document.sum, document.scored);
    rows.push_back(Json::object({{"document", i + 1},
                                 {"tokens", count},
                                 {"scored", document.scored},
                                 {"sum_logprob", document.sum},
                                 {"perplexity", perplexity}}));
    add_row(absl::StrCat(i + 1), count, document.scored, perplexity);
    tokens += count;
    all.sum += document.sum;
    all.scored += document.scored;
  }
  const Json perplexity = Perplexity(all.sum, all.scored);
  add_row("all", tokens, all.scored, perplexity);
  if (!json_wanted) return WriteOutput(text);
  const Json json = Json::object({{"window", window},
                                  {"stride", stride},
                                  {"documents", std::move(rows)},
                                  {"tokens", tokens},
                                  {"scored", all.scored},
                                  {"sum_logprob", all.sum},
                                  {"perplexity", perplexity}});
  return WriteOutput(WriteJson(json, /*indent=*/2) + "\n");
}

}  // namespace

absl::Status RunPerplexity(const PerplexityOptions& options) {
  WatchStopSignals();
  absl::StatusOr<std::vector<std::string>> texts = ReadTexts(options.file);
  if (!texts.ok()) return Annotate(texts.status(), "--file");
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  const int context = session.model().context_tokens;
  const int window = options.window > 0 ? options.window : context;
  const int stride = options.stride > 0 ? options.stride : std::min(window, kDefaultStride);
  if (window < 2 || window > context || stride > window) {
    return absl::InvalidArgumentError(absl::StrCat("a window of ", window, " with a stride of ", stride,
                                                   ": windows have 2 to ", context,
                                                   " tokens, and strides are no longer than they"));
  }
  std::vector<Document> documents(texts->size());
  std::vector<Job> jobs;
  for (size_t i = 0; i < texts->size(); ++i) {
    absl::StatusOr<TokenizeAnswer> tokens =
        session.client().Tokenize((*texts)[i], /*parse_special_tokens=*/false, /*add_special_tokens=*/true);
    if (!tokens.ok()) return Annotate(session.Explain(tokens.status()), absl::StrCat("document ", i + 1));
    documents[i].tokens = std::move(tokens->tokens);
    const auto count = static_cast<int64_t>(documents[i].tokens.size());
    for (const ScoreWindow& score : ScoreWindows(count, window, stride)) jobs.push_back({i, score});
  }
  BW_RETURN_IF_ERROR(ScoreAll(session, jobs, documents));
  BW_RETURN_IF_ERROR(Print(documents, window, stride, options.json));
  return session.Close();
}

}  // namespace bellwether
