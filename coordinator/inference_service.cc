#include "coordinator/inference_service.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/defaults.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/text_pool.h"
#include "coordinator/token_stream.h"
#include "grpcpp/grpcpp.h"
#include "proto/arena_messages.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/generation_codec.h"
#include "proto/grpc_deadline.h"
#include "proto/grpc_status.h"

namespace bellwether {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void ToProto(const Usage& usage, v1::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_generated_tokens(usage.generated_tokens);
  out->set_queue_seconds(absl::ToDoubleSeconds(usage.queued));
  out->set_time_to_first_token_seconds(absl::ToDoubleSeconds(usage.time_to_first_token));
  out->set_total_seconds(absl::ToDoubleSeconds(usage.total));
}

void ToProto(TokenId token, float logprob, const Tokenizer* tokenizer, v1::TokenLogprob* out) {
  out->set_token_id(token);
  out->set_logprob(logprob);
  if (tokenizer != nullptr) out->set_token(std::string(tokenizer->TokenBytes(token)));
}

void ToProto(const TokenChunk& chunk, const Tokenizer* tokenizer, v1::GenerateResponse* out) {
  out->set_choice(chunk.choice);
  out->set_index(chunk.index);
  out->mutable_token_ids()->Add(chunk.tokens.begin(), chunk.tokens.end());
  out->set_text(chunk.text);
  for (const StepOutput& logprobs : chunk.logprobs) {
    v1::TokenLogprobs* added = out->add_logprobs();
    ToProto(logprobs.token, logprobs.logprob, tokenizer, added->mutable_sampled());
    for (const TokenLogprob& top : logprobs.top) ToProto(top.token, top.logprob, tokenizer, added->add_top());
  }
  if (chunk.finish) out->set_finish_reason(ToProto(*chunk.finish));
}

// What the call itself says about a request, before its message is looked at.
struct CallInfo {
  std::string request_id;
  absl::Status request_id_status;
  absl::Duration deadline = absl::InfiniteDuration();  // of the clock
};

CallInfo InfoOf(grpc::CallbackServerContext* context, RequestId id, absl::Duration now) {
  CallInfo info;
  const auto given = context->client_metadata().find(kRequestIdKey);
  if (given != context->client_metadata().end()) {
    info.request_id.assign(given->second.data(), given->second.size());
    info.request_id_status = ValidateRequestId(info.request_id);
  }
  if (info.request_id.empty() || !info.request_id_status.ok())
    info.request_id = absl::StrFormat("req-%d", id.value);
  context->AddInitialMetadata(kRequestIdKey, info.request_id);
  info.deadline = now + GrpcTimeLeft(context->deadline());
  return info;
}

absl::Status Named(const absl::Status& status, const std::string& request_id) {
  return Annotate(status, absl::StrCat("request ", request_id));
}

// Asked now and then while a text is read: an error ends it.
using Stop = std::function<absl::Status()>;

// Of the texts in a message, which are what takes time.
size_t TextBytes(const v1::Prompt& message) { return message.text().size(); }
size_t TextBytes(const v1::GenerateRequest& message) { return TextBytes(message.prompt()); }
size_t TextBytes(const v1::ScoreRequest& message) { return TextBytes(message.prompt()); }
size_t TextBytes(const v1::ChatRequest& message) {
  size_t bytes = 0;
  for (const v1::ChatMessage& it : message.messages()) bytes += it.content().size();
  return bytes;
}

// A call that waits for the pool: whoever is first has it, the task that reads the message, or the client by
// going away, which ends the call and the message with it.
class Claim {
 public:
  bool Take() { return !taken_.exchange(true); }

 private:
  std::atomic<bool> taken_{false};
};

absl::Status TooManyWait() {
  return absl::ResourceExhaustedError("too many requests are waiting to be read; try again later");
}
absl::Status CancelledByClient() { return absl::CancelledError("cancelled by the client"); }

}  // namespace

class InferenceService::Impl : public v1::Inference::CallbackService {
 public:
  explicit Impl(Options options)
      : options_(std::move(options)), pool_({.threads = options_.tokenizer_threads}) {
    SetMessageAllocatorFor_Tokenize(&tokenize_messages_);
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Chat(grpc::CallbackServerContext* context,
                                                       const v1::ChatRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  class GenerateCall;
  class ScoreCall;
  class TextCall;

  // On the pool.
  absl::StatusOr<EngineRequest> MakeRequest(const v1::GenerateRequest& message, const Stop& stop) const;
  absl::StatusOr<EngineRequest> MakeRequest(const v1::ChatRequest& message, const Stop& stop) const;
  absl::StatusOr<EngineRequest> MakeRequest(const v1::ScoreRequest& message, const Stop& stop) const;
  absl::StatusOr<std::vector<TokenId>> PromptTokens(const v1::Prompt& message, bool score,
                                                    const Stop& stop) const;
  EncodeLimits PromptLimits(bool score, const Stop& stop) const;
  absl::Status NeedTokenizer() const;

  // What reading a prompt of so many bytes costs: nothing where their number alone tells that it is refused.
  size_t ReadingBytes(size_t text_bytes) const;
  // Reads the message on the pool and hands the request to `call`.
  template <typename Call, typename Message>
  void Post(std::shared_ptr<Call> call, const Message* message);
  // Runs `work` on a text of `bytes` on the pool and ends the call with its status.
  grpc::ServerUnaryReactor* OnPool(size_t bytes, std::function<absl::Status(const Stop&)> work);
  absl::Status DeadlineStatus(const CallInfo& info) const;
  void LogEnd(const std::string& request_id, const absl::Status& status) const;
  template <typename Message>
  grpc::ServerWriteReactor<v1::GenerateResponse>* Stream(grpc::CallbackServerContext* context,
                                                         const Message* message);

  const Options options_;
  // Refusals are as many as clients like.
  mutable LogLimiter ends_{20, absl::Seconds(1)};
  ArenaMessages<v1::TokenizeRequest, v1::TokenizeResponse> tokenize_messages_;
  TextPool pool_;
};

void InferenceService::Impl::LogEnd(const std::string& request_id, const absl::Status& status) const {
  if (status.ok()) return LogDebug("request ", request_id, " is done");
  if (const auto more = ends_.Admit()) {
    LogInfo("request ", request_id, " ended: ", status.ToString(), AndLikeIt(*more));
  }
}

absl::Status InferenceService::Impl::DeadlineStatus(const CallInfo& info) const {
  if (options_.clock->Now() < info.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline has passed before the prompt was read");
}

// -- Requests

absl::Status InferenceService::Impl::NeedTokenizer() const {
  if (options_.tokenizer != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("the model has no tokenizer: give token ids instead of text");
}

EncodeLimits InferenceService::Impl::PromptLimits(bool score, const Stop& stop) const {
  return {.tokens_max = static_cast<size_t>(PromptTokensMax(score, options_.limits)), .stop = stop};
}

size_t InferenceService::Impl::ReadingBytes(size_t text_bytes) const {
  if (options_.tokenizer == nullptr) return 0;
  const size_t fewest = options_.tokenizer->FewestTokens(text_bytes);
  return fewest > static_cast<size_t>(options_.limits.context_tokens) ? 0 : text_bytes;
}

absl::StatusOr<std::vector<TokenId>> InferenceService::Impl::PromptTokens(const v1::Prompt& message,
                                                                          bool score,
                                                                          const Stop& stop) const {
  BW_ASSIGN_OR_RETURN(PromptInput prompt, Decode(message));
  if (prompt.token_ids) return *std::move(prompt.token_ids);
  BW_RETURN_IF_ERROR(NeedTokenizer());
  absl::StatusOr<std::vector<TokenId>> tokens = options_.tokenizer->Encode(
      *prompt.text,
      {.add_special_tokens = !prompt.no_special_tokens, .parse_special_tokens = prompt.parse_special_tokens},
      PromptLimits(score, stop));
  if (absl::IsOutOfRange(tokens.status())) return PromptTooLong(score, options_.limits);
  return tokens;
}

absl::StatusOr<EngineRequest> InferenceService::Impl::MakeRequest(const v1::GenerateRequest& message,
                                                                  const Stop& stop) const {
  BW_ASSIGN_OR_RETURN(const GenerationOptions options, Decode(message.options()));
  BW_RETURN_IF_ERROR(Validate(options, options_.limits));
  EngineRequest request;
  BW_ASSIGN_OR_RETURN(request.prompt, PromptTokens(message.prompt(), /*score=*/false, stop));
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/false, options_.limits));
  ApplyOptions(options, options_.limits, &request);
  if (options_.tokenizer != nullptr) BW_RETURN_IF_ERROR(AddStopTokens(*options_.tokenizer, &request));
  return request;
}

absl::StatusOr<EngineRequest> InferenceService::Impl::MakeRequest(const v1::ChatRequest& message,
                                                                  const Stop& stop) const {
  BW_ASSIGN_OR_RETURN(const GenerationOptions options, Decode(message.options()));
  BW_RETURN_IF_ERROR(Validate(options, options_.limits));
  BW_RETURN_IF_ERROR(NeedTokenizer());
  if (message.messages_size() > kChatMessagesMax) {
    return absl::InvalidArgumentError(absl::StrCat("messages has ", message.messages_size(),
                                                   " entries, allowed are at most ", kChatMessagesMax));
  }
  std::vector<ChatMessage> messages;
  for (const v1::ChatMessage& it : message.messages())
    messages.push_back({.role = it.role(), .content = it.content()});
  BW_ASSIGN_OR_RETURN(const RenderedChat chat, RenderChat(*options_.chat_template, messages));
  absl::StatusOr<EncodedChat> encoded =
      EncodeChat(chat, *options_.tokenizer, PromptLimits(/*score=*/false, stop));
  if (absl::IsOutOfRange(encoded.status())) return PromptTooLong(/*score=*/false, options_.limits);
  BW_RETURN_IF_ERROR(encoded.status());
  EngineRequest request;
  request.prompt = std::move(encoded->prompt);
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/false, options_.limits));
  ApplyOptions(options, options_.limits, &request);
  BW_RETURN_IF_ERROR(AddStopTokens(*options_.tokenizer, &request));
  request.stop.insert(request.stop.end(), encoded->stop.begin(), encoded->stop.end());
  // The template's end of a turn is as good as an end-of-sequence token.
  if (!options.ignore_eos) {
    request.stop_token_ids.insert(request.stop_token_ids.end(), encoded->stop_token_ids.begin(),
                                  encoded->stop_token_ids.end());
  }
  return request;
}

absl::StatusOr<EngineRequest> InferenceService::Impl::MakeRequest(const v1::ScoreRequest& message,
                                                                  const Stop& stop) const {
  EngineRequest request;
  BW_ASSIGN_OR_RETURN(request.prompt, PromptTokens(message.prompt(), /*score=*/true, stop));
  BW_RETURN_IF_ERROR(ValidatePrompt(request.prompt, /*score=*/true, options_.limits));
  request.score = true;
  return request;
}

// -- Streams

// One Generate or Chat call. Lives until gRPC is done with it; the engine only knows its TokenStream.
class InferenceService::Impl::GenerateCall : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  GenerateCall(const Impl* service, CallInfo info, RequestId id)
      : service_(service), info_(std::move(info)), id_(id) {
    EngineLoop* engine = service->options_.engine;
    stream_ = std::make_shared<TokenStream>(
        TokenStream::Options{.writer = &writer_, .cancel = [engine, id] { engine->Cancel(id); }});
  }
  void KeepUntilDone(std::shared_ptr<GenerateCall> self) { self_ = std::move(self); }

  Claim& claim() { return claim_; }
  // Why reading the message is of no use any more.
  absl::Status GivenUp() const {
    if (cancelled_) return CancelledByClient();
    return service_->DeadlineStatus(info_);
  }
  // On the pool.
  void Submit(absl::StatusOr<EngineRequest> request) {
    if (!info_.request_id_status.ok()) request = info_.request_id_status;
    if (!request.ok()) return End(request.status());
    request->id = id_;
    request->deadline = info_.deadline;
    prompt_ = request->prompt;
    EngineLoop* engine = service_->options_.engine;
    if (const absl::Status status = engine->Submit(*std::move(request), stream_); !status.ok())
      return End(status);
    // A cancel that came before the engine knew the request has to be said again.
    if (cancelled_) engine->Cancel(id_);
  }
  void End(const absl::Status& status) { stream_->OnDone(status, {}, 0); }

 private:
  struct Writer : TokenStream::Writer {
    explicit Writer(GenerateCall* call_in) : call(call_in) {}
    void Write(const TokenStream::Message& message) override { call->WriteMessage(message); }
    void Finish(const absl::Status& status) override {
      call->service_->LogEnd(call->info_.request_id, status);
      call->Finish(ToGrpc(Named(status, call->info_.request_id)));
    }
    GenerateCall* const call;
  };

  void WriteMessage(const TokenStream::Message& message) {
    response_.Clear();
    ToProto(message.chunk, service_->options_.tokenizer, &response_);
    if (message.first) {
      response_.mutable_prompt_token_ids()->Add(prompt_.begin(), prompt_.end());
      response_.set_request_id(info_.request_id);
    }
    if (message.usage) {
      ToProto(*message.usage, response_.mutable_usage());
      response_.set_seed(message.seed);
    }
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override { stream_->WriteDone(ok); }
  void OnCancel() override {
    cancelled_ = true;
    if (claim_.Take()) return End(CancelledByClient());
    service_->options_.engine->Cancel(id_);
  }
  void OnDone() override { const std::shared_ptr<GenerateCall> last = std::move(self_); }

  const Impl* const service_;
  const CallInfo info_;
  const RequestId id_;
  Writer writer_{this};
  std::shared_ptr<TokenStream> stream_;
  std::vector<TokenId> prompt_;
  Claim claim_;
  std::atomic<bool> cancelled_{false};
  v1::GenerateResponse response_;  // being written
  std::shared_ptr<GenerateCall> self_;
};

template <typename Call, typename Message>
void InferenceService::Impl::Post(std::shared_ptr<Call> call, const Message* message) {
  // `message` is gRPC's and lives until the call ends, which the one that has the claim decides.
  const bool posted = pool_.TryPost(ReadingBytes(TextBytes(*message)), [this, call, message] {
    if (!call->claim().Take()) return;
    const Stop stop = [&call] { return call->GivenUp(); };
    if (const absl::Status given_up = stop(); !given_up.ok()) return call->End(given_up);
    call->Submit(MakeRequest(*message, stop));
  });
  if (!posted && call->claim().Take()) call->End(TooManyWait());
}

template <typename Message>
grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Impl::Stream(
    grpc::CallbackServerContext* context, const Message* message) {
  const RequestId id = options_.engine->NewRequestId();
  auto call = std::make_shared<GenerateCall>(this, InfoOf(context, id, options_.clock->Now()), id);
  call->KeepUntilDone(call);
  Post(call, message);
  return call.get();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Impl::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return Stream(context, request);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Impl::Chat(
    grpc::CallbackServerContext* context, const v1::ChatRequest* request) {
  return Stream(context, request);
}

// -- Score

class InferenceService::Impl::ScoreCall : public grpc::ServerUnaryReactor {
 public:
  ScoreCall(const Impl* service, CallInfo info, RequestId id, v1::ScoreResponse* response)
      : service_(service), info_(std::move(info)), id_(id), response_(response) {}
  void KeepUntilDone(std::shared_ptr<ScoreCall> self) { self_ = std::move(self); }

  Claim& claim() { return claim_; }
  absl::Status GivenUp() const {
    if (cancelled_) return CancelledByClient();
    return service_->DeadlineStatus(info_);
  }
  // On the pool.
  void Submit(absl::StatusOr<EngineRequest> request) {
    if (!info_.request_id_status.ok()) request = info_.request_id_status;
    if (!request.ok()) return End(request.status());
    request->id = id_;
    request->deadline = info_.deadline;
    response_->mutable_token_ids()->Add(request->prompt.begin(), request->prompt.end());
    EngineLoop* engine = service_->options_.engine;
    const absl::Status status = engine->Submit(*std::move(request), std::make_shared<Observer>(this));
    if (!status.ok()) return End(status);
    if (cancelled_) engine->Cancel(id_);
  }
  void End(const absl::Status& status) {
    service_->LogEnd(info_.request_id, status);
    Finish(ToGrpc(Named(status, info_.request_id)));
  }

 private:
  // The call outlives the request, as only OnDone here ends it.
  struct Observer : RequestObserver {
    explicit Observer(ScoreCall* call_in) : call(call_in) {}
    void OnTokens(TokenChunk) override {}
    void OnScores(std::vector<float> logprobs) override {
      call->response_->mutable_logprobs()->Add(logprobs.begin(), logprobs.end());
    }
    void OnDone(const absl::Status& status, const Usage& usage, uint64_t) override {
      ToProto(usage, call->response_->mutable_usage());
      call->End(status);
    }
    ScoreCall* const call;
  };

  void OnCancel() override {
    cancelled_ = true;
    if (claim_.Take()) return End(CancelledByClient());
    service_->options_.engine->Cancel(id_);
  }
  void OnDone() override { const std::shared_ptr<ScoreCall> last = std::move(self_); }

  const Impl* const service_;
  const CallInfo info_;
  const RequestId id_;
  v1::ScoreResponse* const response_;
  Claim claim_;
  std::atomic<bool> cancelled_{false};
  std::shared_ptr<ScoreCall> self_;
};

grpc::ServerUnaryReactor* InferenceService::Impl::Score(grpc::CallbackServerContext* context,
                                                        const v1::ScoreRequest* request,
                                                        v1::ScoreResponse* response) {
  const RequestId id = options_.engine->NewRequestId();
  auto call = std::make_shared<ScoreCall>(this, InfoOf(context, id, options_.clock->Now()), id, response);
  call->KeepUntilDone(call);
  Post(call, request);
  return call.get();
}

// -- The rest

// A call that only reads a text. Lives until gRPC and the pool are done with it.
class InferenceService::Impl::TextCall : public grpc::ServerUnaryReactor {
 public:
  void KeepUntilDone(std::shared_ptr<TextCall> self) { self_ = std::move(self); }
  Claim& claim() { return claim_; }
  absl::Status GivenUp() const { return cancelled_ ? CancelledByClient() : absl::OkStatus(); }
  void End(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnCancel() override {
    cancelled_ = true;
    if (claim_.Take()) End(CancelledByClient());
  }
  void OnDone() override { const std::shared_ptr<TextCall> last = std::move(self_); }

  Claim claim_;
  std::atomic<bool> cancelled_{false};
  std::shared_ptr<TextCall> self_;
};

grpc::ServerUnaryReactor* InferenceService::Impl::OnPool(size_t bytes,
                                                         std::function<absl::Status(const Stop&)> work) {
  auto call = std::make_shared<TextCall>();
  call->KeepUntilDone(call);
  const bool posted = pool_.TryPost(bytes, [call, work = std::move(work)] {
    if (call->claim().Take()) call->End(work([&call] { return call->GivenUp(); }));
  });
  if (!posted && call->claim().Take()) call->End(TooManyWait());
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::Impl::Tokenize(grpc::CallbackServerContext*,
                                                           const v1::TokenizeRequest* request,
                                                           v1::TokenizeResponse* response) {
  return OnPool(request->text().size(), [this, request, response](const Stop& stop) -> absl::Status {
    BW_RETURN_IF_ERROR(NeedTokenizer());
    BW_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                        options_.tokenizer->Encode(request->text(),
                                                   {.add_special_tokens = request->add_special_tokens(),
                                                    .parse_special_tokens = request->parse_special_tokens()},
                                                   {.stop = stop}));
    response->mutable_token_ids()->Reserve(static_cast<int>(ids.size()));
    response->mutable_tokens()->Reserve(static_cast<int>(ids.size()));
    for (const TokenId id : ids) {
      response->add_token_ids(id);
      response->add_tokens(std::string(options_.tokenizer->TokenBytes(id)));
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::Impl::Detokenize(grpc::CallbackServerContext*,
                                                             const v1::DetokenizeRequest* request,
                                                             v1::DetokenizeResponse* response) {
  const size_t bytes = sizeof(TokenId) * static_cast<size_t>(request->token_ids_size());
  return OnPool(bytes, [this, request, response](const Stop&) -> absl::Status {
    BW_RETURN_IF_ERROR(NeedTokenizer());
    const std::vector<TokenId> ids(request->token_ids().begin(), request->token_ids().end());
    for (const TokenId id : ids) {
      if (id >= 0 && id < options_.limits.vocab) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("token_ids holds token id ", id, ", allowed is 0 to ", options_.limits.vocab - 1));
    }
    response->set_text(options_.tokenizer->Decode(ids, /*skip_special=*/!request->keep_special_tokens()));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::Impl::GetModel(grpc::CallbackServerContext* context,
                                                           const v1::GetModelRequest*,
                                                           v1::GetModelResponse* response) {
  const ClusterService::Status cluster = options_.cluster_status();
  response->set_name(options_.model.name);
  response->set_model_id(options_.model.id);
  response->set_architecture(options_.model.architecture);
  response->set_vocab_size(options_.limits.vocab);
  response->set_context_tokens(options_.limits.context_tokens);
  if (options_.chat_template != nullptr) {
    response->set_chat_template(options_.chat_template->name);
  }
  response->set_has_tokenizer(options_.tokenizer != nullptr);
  response->set_serving(cluster.serving);
  response->set_layout(cluster.layout);
  response->set_kernel_level(cluster.kernel_level);
  response->set_weights(options_.model.weights);
  response->set_kv_blocks(cluster.kv_blocks);
  Encode(options_.model.authors_options, response->mutable_authors_options());
  if (!cluster.serving) {
    response->set_not_serving_reason(Printable(cluster.not_serving_reason));
    response->set_refused(cluster.refused);
    response->set_loading_progress(cluster.loading_progress);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

InferenceService::InferenceService(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
InferenceService::~InferenceService() = default;
grpc::Service* InferenceService::service() { return impl_.get(); }

}  // namespace bellwether
