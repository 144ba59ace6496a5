#include "coordinator/http_completion.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/http_error.h"

namespace bellwether {
namespace {

// A CPU's first token may take longer than proxies wait in silence.
constexpr absl::Duration kSilenceMax = absl::Seconds(15);
constexpr char kSilenceFiller[] = ": still here\n\n";

}  // namespace

class HttpCompletion::Observer : public RequestObserver {
 public:
  Observer(std::shared_ptr<HttpCompletion> call, size_t prompt, bool score)
      : call_(std::move(call)), prompt_(prompt), score_(score) {}
  void OnAccepted() override { call_->OnAccepted(); }
  void OnTokens(TokenChunk chunk) override { call_->OnTokens(prompt_, chunk); }
  void OnInterrupted(const std::string& reason) override { call_->OnInterrupted(reason); }
  void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob> best) override {
    call_->OnScores(prompt_, logprobs, best);
  }
  void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override {
    call_->OnDone(prompt_, score_, status, usage, seed);
  }

 private:
  const std::shared_ptr<HttpCompletion> call_;
  const size_t prompt_;
  const bool score_;
};

// -- Reading

absl::Status HttpCompletion::ReadBody(const Json& body) {
  BW_ASSIGN_OR_RETURN(const OpenAiRequest asked,
                      chat_ ? ParseChatRequest(body) : ParseCompletionRequest(body));
  BW_RETURN_IF_ERROR(gateway_->CheckModel(asked.model));
  std::vector<EngineRequest> requests;
  std::vector<std::string> echoes;
  BW_RETURN_IF_ERROR(MakeRequests(asked, &requests, &echoes));
  Prepare(asked, requests, echoes);
  SubmitAll(asked, std::move(requests));
  return absl::OkStatus();
}

absl::Status HttpCompletion::MakeRequests(const OpenAiRequest& asked, std::vector<EngineRequest>* requests,
                                          std::vector<std::string>* echoes) const {
  const StopReading stop = [this] { return GivenUp(); };
  if (asked.chat) {
    BW_ASSIGN_OR_RETURN(EngineRequest request,
                        service().MakeRequest(ChatInput{asked.messages, asked.options}, stop));
    requests->push_back(std::move(request));
  }
  for (const PromptInput& prompt : asked.prompts) {
    BW_ASSIGN_OR_RETURN(EngineRequest request,
                        asked.answers ? service().MakeRequest(GenerateInput{prompt, asked.options}, stop)
                                      : service().MakeScoreRequest(prompt, stop));
    requests->push_back(std::move(request));
  }
  echoes->resize(requests->size());
  for (size_t i = 0; asked.echo && i < requests->size(); ++i) {
    if (asked.prompts[i].text) {
      (*echoes)[i] = *asked.prompts[i].text;
    } else {
      BW_ASSIGN_OR_RETURN((*echoes)[i], service().Detokenize((*requests)[i].prompt, /*skip_special=*/true));
    }
  }
  return absl::OkStatus();
}

void HttpCompletion::Prepare(const OpenAiRequest& asked, const std::vector<EngineRequest>& requests,
                             const std::vector<std::string>& echoes) {
  stream_ = asked.stream;
  include_usage_ = asked.include_usage;
  choices_each_ = static_cast<size_t>(asked.options.n.value_or(1));
  const bool logprobs = asked.options.logprobs.has_value();
  requests_ = requests.size() * ((asked.answers ? 1 : 0) + (asked.echo && logprobs ? 1 : 0));
  const Tokenizer* const tokenizer = service().tokenizer();
  answer_ = std::make_unique<OpenAiAnswer>(tokenizer,
                                           OpenAiAnswer::Options{.chat = chat_,
                                                                 .stream = stream_,
                                                                 .logprobs = logprobs,
                                                                 .usage_in_pieces = include_usage_,
                                                                 .id = request_id(),
                                                                 .created = absl::ToUnixSeconds(absl::Now()),
                                                                 .model = asked.model,
                                                                 .fingerprint = gateway_->Fingerprint()});
  MutexLock lock(&mutex_);
  for (const EngineRequest& request : requests) {
    prompts_.push_back({.ids = request.prompt, .unfinished = choices_each_});
    if (!asked.answers) usage_.prompt_tokens += static_cast<int32_t>(request.prompt.size());
  }
  // Who has the prompt's tokens listed counts all of them: lm-eval takes the last one for the answer's.
  const auto special = asked.echo ? ShownTokens::Special::kListed : ShownTokens::Special::kLeftOut;
  choices_.resize(requests.size() * choices_each_);
  for (size_t i = 0; i < choices_.size(); ++i) {
    OpenAiChoice& shown = choices_[i].shown;
    shown.index = static_cast<int32_t>(i);
    shown.text = echoes[i / choices_each_];
    if (!asked.answers) shown.finish = FinishReason::kLength;
    if (logprobs && tokenizer != nullptr) choices_[i].aligner.emplace(tokenizer, special);
  }
}

void HttpCompletion::SubmitAll(const OpenAiRequest& asked, std::vector<EngineRequest> requests) {
  const auto self = std::static_pointer_cast<HttpCompletion>(shared_from_this());
  const auto submit = [&](EngineRequest request, size_t prompt) {
    const auto observer = std::make_shared<Observer>(self, prompt, request.score);
    LogFields part;
    if (requests.size() > 1) part = {{"prompt", absl::StrCat(prompt)}};
    const absl::Status status = Submit(std::move(request), observer, std::move(part));
    if (status.ok()) return true;
    service().CountRefused(status);
    Fail(status);
    return false;
  };
  for (size_t i = 0; i < requests.size(); ++i) {
    if (asked.echo && asked.options.logprobs) {
      EngineRequest score{.prompt = requests[i].prompt, .score = true};
      score.sampling.logprobs = *asked.options.logprobs;
      if (!submit(std::move(score), i)) return;
    }
    if (asked.answers && !submit(std::move(requests[i]), i)) return;
  }
  if (requests_ == 0) AllDone();
}

// -- From the engine's thread

void HttpCompletion::OnAccepted() {
  MutexLock lock(&mutex_);
  ++accepted_;
  if (!stream_ || failed_ || accepted_ < requests_) return;
  BeginStream();
  for (size_t i = 0; i < prompts_.size(); ++i) SendNews(i);  // others were accepted before
}

void HttpCompletion::OnTokens(size_t prompt, const TokenChunk& chunk) {
  MutexLock lock(&mutex_);
  if (failed_) return;
  Choice& choice = choices_[prompt * choices_each_ + static_cast<size_t>(chunk.choice)];
  OpenAiChoice& shown = choice.shown;
  if (choice.aligner) {
    for (ShownToken& token : choice.aligner->Push(chunk)) shown.tokens.push_back(std::move(token));
  }
  shown.text += chunk.text;
  shown.finish = chunk.finish;
  if (chunk.finish) --prompts_[prompt].unfinished;
  choice.news = choice.news || !shown.text.empty() || !shown.tokens.empty() || chunk.finish;
  if (streaming_) SendNews(prompt);
}

// A comment of the stream, on one line whatever a worker has said: for people who look, and a sign of life.
// All requests of the call that are not over hear of it, one after the other.
void HttpCompletion::OnInterrupted(const std::string& reason) {
  const std::string line = absl::StrReplaceAll(Printable(reason), {{"\n", " "}, {"\r", " "}});
  MutexLock lock(&mutex_);
  if (!streaming_ || failed_) return;
  const bool is_first = heard_ == 0;
  heard_ = (heard_ + 1) % (requests_ - done_);
  if (!is_first) return;
  (void)exchange().Write(absl::StrCat(": ", line, "; the answer goes on when service is back\n\n"));
}

void HttpCompletion::OnScores(size_t prompt, const std::vector<float>& logprobs,
                              const std::vector<TokenLogprob>& best) {
  const Tokenizer& tokenizer = *service().tokenizer();  // else nothing could have been echoed
  MutexLock lock(&mutex_);
  Prompt& state = prompts_[prompt];
  // The first text of a prompt lacks the space that the tokenizer has put before it.
  bool strip = tokenizer.strips_leading_space();
  for (size_t i = 0; i < state.ids.size(); ++i) {
    std::string_view bytes = tokenizer.TokenBytes(state.ids[i]);
    if (!bytes.empty() && std::exchange(strip, false) && bytes.starts_with(' ')) bytes.remove_prefix(1);
    ShownToken token{.output = {.token = state.ids[i]}, .bytes = std::string(bytes)};
    // Nothing precedes the first token, so nothing is known of it.
    token.output.logprob = i == 0 ? std::numeric_limits<float>::quiet_NaN() : logprobs[i - 1];
    if (i > 0 && !best.empty()) token.output.top = {best[i - 1]};
    state.echoed.push_back(std::move(token));
  }
}

void HttpCompletion::OnDone(size_t prompt, bool score, const absl::Status& status, const Usage& usage,
                            uint64_t seed) {
  if (!status.ok()) return Fail(status);
  {
    MutexLock lock(&mutex_);
    if (failed_) return;
    if (!score) {
      usage_.prompt_tokens += usage.prompt_tokens;
      usage_.cached_prompt_tokens += usage.cached_prompt_tokens;
      usage_.generated_tokens += usage.generated_tokens;
      prompts_[prompt].seed = seed;
      if (streaming_) SendNews(prompt);
    }
    if (++done_ < requests_) return;
  }
  AllDone();
}

void HttpCompletion::AllDone() {
  LogEnd(absl::OkStatus());
  if (stream_) {
    MutexLock lock(&mutex_);
    if (!streaming_) {  // an echo alone
      BeginStream();
      for (Choice& choice : choices_) SendPiece(&choice, std::nullopt);
    }
    return FinishStream();
  }
  // A long answer with log-probabilities takes longer to write than a step.
  const auto self = std::static_pointer_cast<HttpCompletion>(shared_from_this());
  if (!service().TryPost(0, [self] { self->RespondWhole(); })) RespondWhole();
}

// -- Sending

void HttpCompletion::Fail(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(failed_, true)) return;
    if (streaming_) {
      LogEnd(status);
      SendEvent(ErrorJson(status));
      exchange().Finish();
    } else {
      End(status);
    }
  }
  CancelSubmitted();
}

void HttpCompletion::BeginStream() {
  streaming_ = true;
  HttpStream stream{.headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                {"Cache-Control", "no-cache"},
                                {"X-Accel-Buffering", "no"}},  // nginx would collect the pieces
                    .silence_max = kSilenceMax,
                    .filler = kSilenceFiller};
  AddNames(&stream.headers);
  exchange().BeginStream(std::move(stream));
}

void HttpCompletion::SendNews(size_t prompt) {
  const Prompt& state = prompts_[prompt];
  for (size_t i = prompt * choices_each_; i < (prompt + 1) * choices_each_; ++i) {
    Choice& choice = choices_[i];
    if (!choice.news) continue;
    const bool last = choice.shown.finish && state.unfinished == 0;
    if (last && !state.seed) continue;  // it comes with the end of the request, in a moment
    SendPiece(&choice, last ? state.seed : std::nullopt);
  }
}

void HttpCompletion::SendPiece(Choice* choice, std::optional<uint64_t> seed) {
  OpenAiChoice& shown = choice->shown;
  SendEvent(answer_->Piece(shown, seed));
  shown.text_offset = TextOffsets(shown.tokens, shown.text_offset).back();
  shown.text.clear();
  shown.tokens.clear();
  shown.first = false;
  choice->news = false;
}

void HttpCompletion::SendEvent(std::string_view data) {
  std::string event = "data: ";
  event.append(data).append("\n\n");
  (void)exchange().Write(event);  // who has gone is heard of by OnGone
}

void HttpCompletion::FinishStream() {
  if (include_usage_) SendEvent(answer_->UsagePiece(usage_));
  SendEvent("[DONE]");
  exchange().Finish();
}

void HttpCompletion::RespondWhole() {
  std::vector<OpenAiChoice> choices;
  std::vector<uint64_t> seeds;
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < choices_.size(); ++i) {
    OpenAiChoice& shown = choices_[i].shown;
    const std::vector<ShownToken>& echoed = prompts_[i / choices_each_].echoed;
    shown.tokens.insert(shown.tokens.begin(), echoed.begin(), echoed.end());
    choices.push_back(std::move(shown));
  }
  for (const Prompt& prompt : prompts_) {
    if (prompt.seed) seeds.push_back(*prompt.seed);
  }
  Respond(JsonResponse(answer_->Whole(choices, usage_, seeds)));
}

}  // namespace bellwether
