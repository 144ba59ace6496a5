#include "coordinator/http_completion.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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
  Observer(std::shared_ptr<HttpCompletion> call, size_t prompt) : call_(std::move(call)), prompt_(prompt) {}
  void OnAccepted() override { call_->OnAccepted(); }
  void OnTokens(TokenChunk chunk) override { call_->OnTokens(prompt_, std::move(chunk)); }
  void OnScores(std::vector<float>) override {}
  void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override {
    call_->OnDone(prompt_, status, usage, seed);
  }

 private:
  const std::shared_ptr<HttpCompletion> call_;
  const size_t prompt_;
};

// -- Reading

absl::Status HttpCompletion::ReadBody(const Json& body) {
  BW_ASSIGN_OR_RETURN(const OpenAiRequest asked,
                      chat_ ? ParseChatRequest(body) : ParseCompletionRequest(body));
  BW_RETURN_IF_ERROR(gateway_->CheckModel(asked.model));
  std::vector<EngineRequest> requests;
  std::vector<std::string> echoes;
  BW_RETURN_IF_ERROR(MakeRequests(asked, &requests, &echoes));
  Prepare(asked, std::move(echoes));
  if (asked.answers) {
    SubmitAll(std::move(requests));
  } else {
    EchoAlone(requests);
  }
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
                        service().MakeRequest(GenerateInput{prompt, asked.options}, stop));
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

void HttpCompletion::Prepare(const OpenAiRequest& asked, std::vector<std::string> echoes) {
  stream_ = asked.stream;
  include_usage_ = asked.include_usage;
  choices_each_ = static_cast<size_t>(asked.options.n.value_or(1));
  const Tokenizer* const tokenizer = service().tokenizer();
  answer_ = std::make_unique<OpenAiAnswer>(
      tokenizer, OpenAiAnswer::Options{.chat = chat_,
                                       .stream = stream_,
                                       .logprobs = asked.options.logprobs.has_value(),
                                       .usage_in_pieces = include_usage_,
                                       .id = request_id(),
                                       .created = absl::ToUnixSeconds(absl::Now()),
                                       .model = asked.model,
                                       .fingerprint = gateway_->Fingerprint()});
  MutexLock lock(&mutex_);
  prompts_.resize(echoes.size(), {.unfinished = choices_each_});
  choices_.resize(echoes.size() * choices_each_);
  for (size_t i = 0; i < choices_.size(); ++i) {
    OpenAiChoice& shown = choices_[i].shown;
    shown.index = static_cast<int32_t>(i);
    shown.text = echoes[i / choices_each_];
    shown.text_offset = Characters(shown.text);
    if (asked.options.logprobs && tokenizer != nullptr) choices_[i].aligner.emplace(tokenizer);
  }
}

void HttpCompletion::SubmitAll(std::vector<EngineRequest> requests) {
  const auto self = std::static_pointer_cast<HttpCompletion>(shared_from_this());
  for (size_t i = 0; i < requests.size(); ++i) {
    const absl::Status status = Submit(std::move(requests[i]), std::make_shared<Observer>(self, i));
    if (!status.ok()) return Fail(status);
  }
}

void HttpCompletion::EchoAlone(const std::vector<EngineRequest>& requests) {
  {
    MutexLock lock(&mutex_);
    for (Choice& choice : choices_) choice.shown.finish = FinishReason::kLength;
    for (const EngineRequest& request : requests)
      usage_.prompt_tokens += static_cast<int32_t>(request.prompt.size());
    prompts_.clear();  // none has a seed
    LogEnd(absl::OkStatus());
    if (stream_) {
      BeginStream();
      for (Choice& choice : choices_) SendPiece(&choice, std::nullopt);
      return FinishStream();
    }
  }
  RespondWhole();
}

// -- From the engine's thread

void HttpCompletion::OnAccepted() {
  MutexLock lock(&mutex_);
  ++accepted_;
  if (!stream_ || failed_ || accepted_ < prompts_.size()) return;
  BeginStream();
  for (size_t i = 0; i < prompts_.size(); ++i) SendNews(i);  // others were accepted before
}

void HttpCompletion::OnTokens(size_t prompt, TokenChunk chunk) {
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

void HttpCompletion::OnDone(size_t prompt, const absl::Status& status, const Usage& usage, uint64_t seed) {
  if (!status.ok()) return Fail(status);
  {
    MutexLock lock(&mutex_);
    if (failed_) return;
    usage_.prompt_tokens += usage.prompt_tokens;
    usage_.generated_tokens += usage.generated_tokens;
    prompts_[prompt].seed = seed;
    if (streaming_) SendNews(prompt);
    if (++done_ < prompts_.size()) return;
    LogEnd(absl::OkStatus());
    if (stream_) return FinishStream();
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
  exchange().BeginStream({.headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                      {"Cache-Control", "no-cache"},
                                      {"X-Accel-Buffering", "no"},  // nginx would collect the pieces
                                      NameHeader()},
                          .silence_max = kSilenceMax,
                          .filler = kSilenceFiller});
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
  for (const ShownToken& token : shown.tokens) shown.text_offset += Characters(token.bytes);
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
  for (Choice& choice : choices_) choices.push_back(std::move(choice.shown));
  for (const Prompt& prompt : prompts_) seeds.push_back(prompt.seed.value_or(0));
  Respond(JsonResponse(answer_->Whole(choices, usage_, seeds)));
}

}  // namespace bellwether
