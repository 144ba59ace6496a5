#include "coordinator/inference_service.h"

#include <utility>

#include "absl/time/time.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/request_call.h"
#include "coordinator/token_stream.h"
#include "coordinator/trace_context.h"
#include "grpcpp/grpcpp.h"
#include "proto/arena_messages.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/generation_codec.h"
#include "proto/grpc_deadline.h"
#include "proto/grpc_status.h"

namespace bellwether {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kAuthorizationKey[] = "authorization";

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
  out->set_interruptions(usage.interruptions);
  out->set_cached_prompt_tokens(usage.cached_prompt_tokens);
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

// What the client gives under that key; empty if it is nothing.
std::string Given(const grpc::CallbackServerContext& context, const char* key) {
  const auto given = context.client_metadata().find(key);
  if (given == context.client_metadata().end()) return {};
  return std::string(given->second.data(), given->second.size());
}

Caller CallerOf(const grpc::CallbackServerContext& context) {
  return {.request_id = Given(context, kRequestIdKey),
          .authorization = Given(context, kAuthorizationKey),
          .traceparent = Given(context, kTraceparent),
          .time_left = GrpcTimeLeft(context.deadline())};
}
// Tells the client what the call is called.
void AddNames(const RequestCall& call, grpc::CallbackServerContext* context) {
  context->AddInitialMetadata(kRequestIdKey, call.request_id());
  if (!call.traceparent().empty()) context->AddInitialMetadata(kTraceparent, call.traceparent());
}

// The texts in a message, which are what takes time.
const std::string& TextOf(const v1::GenerateRequest& message) { return message.prompt().text(); }
const std::string& TextOf(const v1::ScoreRequest& message) { return message.prompt().text(); }
std::string TextOf(const v1::ChatRequest& message) {
  std::string text;
  for (const v1::ChatMessage& it : message.messages()) text += it.content();
  return text;
}

absl::StatusOr<GenerateInput> DecodeInput(const v1::GenerateRequest& message) {
  GenerateInput input;
  BW_ASSIGN_OR_RETURN(input.options, Decode(message.options()));
  BW_ASSIGN_OR_RETURN(input.prompt, Decode(message.prompt()));
  return input;
}
absl::StatusOr<ChatInput> DecodeInput(const v1::ChatRequest& message) {
  ChatInput input;
  BW_ASSIGN_OR_RETURN(input.options, Decode(message.options()));
  for (const v1::ChatMessage& it : message.messages())
    input.messages.push_back({.role = it.role(), .content = it.content()});
  return input;
}

}  // namespace

class InferenceService::Impl : public v1::Inference::CallbackService {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {
    SetMessageAllocatorFor_Tokenize(&tokenize_messages_);
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override {
    return Stream(context, request);
  }
  grpc::ServerWriteReactor<v1::GenerateResponse>* Chat(grpc::CallbackServerContext* context,
                                                       const v1::ChatRequest* request) override {
    return Stream(context, request);
  }
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
  template <typename Message>
  class GenerateCall;
  class ScoreCall;
  class TextCall;

  template <typename Message>
  grpc::ServerWriteReactor<v1::GenerateResponse>* Stream(grpc::CallbackServerContext* context,
                                                         const Message* message);
  // Runs `work` on a text of `bytes` on the pool and ends the call with its status.
  grpc::ServerUnaryReactor* OnPool(const grpc::CallbackServerContext& context, size_t bytes,
                                   std::function<absl::Status(const StopReading&)> work);

  const Options options_;
  ArenaMessages<v1::TokenizeRequest, v1::TokenizeResponse> tokenize_messages_;
};

// -- Streams

// One Generate or Chat call. Lives until gRPC is done with it, as its message does; the engine only knows its
// TokenStream.
template <typename Message>
class InferenceService::Impl::GenerateCall : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                                             public RequestCall {
 public:
  GenerateCall(RequestService* service, grpc::CallbackServerContext* context, const Message* message)
      : RequestCall(service, CallerOf(*context)), message_(message) {
    AddNames(*this, context);
    // By number, as the engine knows the stream longer than there is a call.
    stream_ = std::make_shared<TokenStream>(TokenStream::Options{
        .writer = &writer_, .cancel = [service, id = first_id()] { service->engine().Cancel(id); }});
  }
  void KeepUntilDone(std::shared_ptr<GenerateCall> self) { self_ = std::move(self); }

 private:
  struct Writer : TokenStream::Writer {
    explicit Writer(GenerateCall* call_in) : call(call_in) {}
    void Write(const TokenStream::Message& message) override { call->WriteMessage(message); }
    void Finish(const absl::Status& status) override {
      call->LogEnd(status);
      call->Finish(ToGrpc(call->Named(status)));
    }
    GenerateCall* const call;
  };

  void Read() override {
    if (const absl::Status status = ReadAndSubmit(); !status.ok()) Refuse(status);
  }
  absl::Status ReadAndSubmit() {
    BW_ASSIGN_OR_RETURN(const auto input, DecodeInput(*message_));
    BW_ASSIGN_OR_RETURN(EngineRequest request, service().MakeRequest(input, [this] { return GivenUp(); }));
    prompt_ = request.prompt;
    return Submit(std::move(request), stream_);
  }
  void End(const absl::Status& status) override { stream_->OnDone(status, {}, 0); }

  void WriteMessage(const TokenStream::Message& message) {
    response_.Clear();
    ToProto(message.chunk, service().tokenizer(), &response_);
    response_.set_interruption(Printable(message.notice));
    if (message.first) {
      response_.mutable_prompt_token_ids()->Add(prompt_.begin(), prompt_.end());
      response_.set_request_id(request_id());
    }
    if (message.usage) {
      ToProto(*message.usage, response_.mutable_usage());
      response_.set_seed(message.seed);
    }
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override { stream_->WriteDone(ok); }
  void OnCancel() override { Cancel(); }
  void OnDone() override { const std::shared_ptr<GenerateCall> last = std::move(self_); }

  const Message* const message_;
  Writer writer_{this};
  std::shared_ptr<TokenStream> stream_;
  std::vector<TokenId> prompt_;
  v1::GenerateResponse response_;  // being written
  std::shared_ptr<GenerateCall> self_;
};

template <typename Message>
grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Impl::Stream(
    grpc::CallbackServerContext* context, const Message* message) {
  RequestService* const requests = options_.requests;
  auto call = std::make_shared<GenerateCall<Message>>(requests, context, message);
  call->KeepUntilDone(call);
  call->Start(requests->ReadingBytes(TextOf(*message)));
  return call.get();
}

// -- Score

class InferenceService::Impl::ScoreCall : public grpc::ServerUnaryReactor, public RequestCall {
 public:
  ScoreCall(RequestService* service, grpc::CallbackServerContext* context, const v1::ScoreRequest* message,
            v1::ScoreResponse* response)
      : RequestCall(service, CallerOf(*context)), message_(message), response_(response) {
    AddNames(*this, context);
  }
  void KeepUntilDone(std::shared_ptr<ScoreCall> self) { self_ = std::move(self); }

 private:
  // The call outlives the request, as only OnDone here ends it.
  struct Observer : RequestObserver {
    explicit Observer(ScoreCall* call_in) : call(call_in) {}
    void OnAccepted() override {}
    void OnTokens(TokenChunk) override {}
    void OnInterrupted(const std::string&) override {}
    void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob>) override {
      call->response_->mutable_logprobs()->Add(logprobs.begin(), logprobs.end());
    }
    void OnDone(const absl::Status& status, const Usage& usage, uint64_t) override {
      ToProto(usage, call->response_->mutable_usage());
      call->End(status);
    }
    ScoreCall* const call;
  };

  void Read() override {
    if (const absl::Status status = ReadAndSubmit(); !status.ok()) Refuse(status);
  }
  absl::Status ReadAndSubmit() {
    BW_ASSIGN_OR_RETURN(PromptInput prompt, Decode(message_->prompt()));
    BW_ASSIGN_OR_RETURN(EngineRequest request,
                        service().MakeScoreRequest(std::move(prompt), [this] { return GivenUp(); }));
    response_->mutable_token_ids()->Add(request.prompt.begin(), request.prompt.end());
    return Submit(std::move(request), std::make_shared<Observer>(this));
  }
  void End(const absl::Status& status) override {
    LogEnd(status);
    Finish(ToGrpc(Named(status)));
  }
  void OnCancel() override { Cancel(); }
  void OnDone() override { const std::shared_ptr<ScoreCall> last = std::move(self_); }

  const v1::ScoreRequest* const message_;
  v1::ScoreResponse* const response_;
  std::shared_ptr<ScoreCall> self_;
};

grpc::ServerUnaryReactor* InferenceService::Impl::Score(grpc::CallbackServerContext* context,
                                                        const v1::ScoreRequest* request,
                                                        v1::ScoreResponse* response) {
  auto call = std::make_shared<ScoreCall>(options_.requests, context, request, response);
  call->KeepUntilDone(call);
  call->Start(options_.requests->ReadingBytes(TextOf(*request)));
  return call.get();
}

// -- The rest

// A call that only reads a text. Lives until gRPC and the pool are done with it.
class InferenceService::Impl::TextCall : public grpc::ServerUnaryReactor, public RequestCall {
 public:
  using Work = std::function<absl::Status(const StopReading&)>;
  TextCall(RequestService* service, const grpc::CallbackServerContext& context, Work work)
      : RequestCall(service, {.authorization = Given(context, kAuthorizationKey)}), work_(std::move(work)) {}
  void KeepUntilDone(std::shared_ptr<TextCall> self) { self_ = std::move(self); }

 private:
  void Read() override {
    End(work_([this] { return GivenUp(); }));
  }
  void End(const absl::Status& status) override { Finish(ToGrpc(status)); }
  void OnCancel() override { Cancel(); }
  void OnDone() override { const std::shared_ptr<TextCall> last = std::move(self_); }

  const Work work_;
  std::shared_ptr<TextCall> self_;
};

grpc::ServerUnaryReactor* InferenceService::Impl::OnPool(
    const grpc::CallbackServerContext& context, size_t bytes,
    std::function<absl::Status(const StopReading&)> work) {
  auto call = std::make_shared<TextCall>(options_.requests, context, std::move(work));
  call->KeepUntilDone(call);
  call->Start(bytes);
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::Impl::Tokenize(grpc::CallbackServerContext* context,
                                                           const v1::TokenizeRequest* request,
                                                           v1::TokenizeResponse* response) {
  return OnPool(*context, request->text().size(),
                [this, request, response](const StopReading& stop) -> absl::Status {
                  BW_ASSIGN_OR_RETURN(
                      const std::vector<TokenId> ids,
                      options_.requests->Tokenize(request->text(),
                                                  {.add_special_tokens = request->add_special_tokens(),
                                                   .parse_special_tokens = request->parse_special_tokens()},
                                                  stop));
                  response->mutable_token_ids()->Reserve(static_cast<int>(ids.size()));
                  response->mutable_tokens()->Reserve(static_cast<int>(ids.size()));
                  for (const TokenId id : ids) {
                    response->add_token_ids(id);
                    response->add_tokens(std::string(options_.requests->tokenizer()->TokenBytes(id)));
                  }
                  return absl::OkStatus();
                });
}

grpc::ServerUnaryReactor* InferenceService::Impl::Detokenize(grpc::CallbackServerContext* context,
                                                             const v1::DetokenizeRequest* request,
                                                             v1::DetokenizeResponse* response) {
  const size_t bytes = sizeof(TokenId) * static_cast<size_t>(request->token_ids_size());
  return OnPool(*context, bytes, [this, request, response](const StopReading&) -> absl::Status {
    const std::vector<TokenId> ids(request->token_ids().begin(), request->token_ids().end());
    BW_ASSIGN_OR_RETURN(*response->mutable_text(),
                        options_.requests->Detokenize(ids, /*skip_special=*/!request->keep_special_tokens()));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* InferenceService::Impl::GetModel(grpc::CallbackServerContext* context,
                                                           const v1::GetModelRequest*,
                                                           v1::GetModelResponse* response) {
  const ClusterService::Status cluster = options_.cluster_status();
  const RequestService& requests = *options_.requests;
  response->set_name(options_.model.name);
  response->set_model_id(options_.model.id);
  response->set_architecture(options_.model.architecture);
  response->set_vocab_size(requests.limits().vocab);
  response->set_context_tokens(requests.limits().context_tokens);
  if (requests.chat_template() != nullptr) response->set_chat_template(requests.chat_template()->name);
  response->set_has_tokenizer(requests.tokenizer() != nullptr);
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
