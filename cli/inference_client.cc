#include "cli/inference_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/status.h"
#include "grpcpp/grpcpp.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/generation_codec.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_deadline.h"
#include "proto/grpc_log.h"
#include "proto/grpc_status.h"

namespace bellwether {
namespace {

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_DEADLINE:
      return "deadline";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      return "";
  }
}

AnswerUsage FromProto(const v1::Usage& usage) {
  return {.prompt_tokens = usage.prompt_tokens(),
          .cached_prompt_tokens = usage.cached_prompt_tokens(),
          .generated_tokens = usage.generated_tokens(),
          .queue_seconds = usage.queue_seconds(),
          .time_to_first_token_seconds = usage.time_to_first_token_seconds(),
          .total_seconds = usage.total_seconds(),
          .interruptions = usage.interruptions()};
}

AnswerLogprob FromProto(const v1::TokenLogprob& logprob) {
  return {.token = logprob.token_id(), .logprob = logprob.logprob(), .bytes = logprob.token()};
}

AnswerChunk FromProto(const v1::GenerateResponse& message) {
  AnswerChunk chunk{.interruption = message.interruption(),
                    .choice = message.choice(),
                    .index = message.index(),
                    .tokens = {message.token_ids().begin(), message.token_ids().end()},
                    .text = message.text(),
                    .finish_reason = FinishReasonName(message.finish_reason()),
                    .prompt_tokens = {message.prompt_token_ids().begin(), message.prompt_token_ids().end()},
                    .request_id = message.request_id(),
                    .seed = message.seed()};
  for (const v1::TokenLogprobs& logprobs : message.logprobs()) {
    AnswerLogprobs& added = chunk.logprobs.emplace_back();
    added.sampled = FromProto(logprobs.sampled());
    for (const v1::TokenLogprob& top : logprobs.top()) added.top.push_back(FromProto(top));
  }
  if (message.has_usage()) chunk.usage = FromProto(message.usage());
  return chunk;
}

void SetTimeout(absl::Duration timeout, grpc::ClientContext* context) {
  if (timeout == absl::InfiniteDuration()) return;
  context->set_deadline(GrpcDeadlineAfter(timeout));
}

}  // namespace

void Cancellation::Cancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  for (void* call : calls_) static_cast<grpc::ClientContext*>(call)->TryCancel();
}

bool Cancellation::cancelled() const {
  MutexLock lock(&mutex_);
  return cancelled_;
}

bool Cancellation::WaitFor(absl::Duration limit) const {
  MutexLock lock(&mutex_);
  const auto cancelled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return cancelled_; };
  return mutex_.AwaitFor(cancelled, limit);
}

struct InferenceClient::Connection {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> stub;
  std::string api_key;

  // A context set up as `options` say, known to their Cancellation for as long as this lives.
  class Call {
   public:
    Call(const Connection& connection, const CallOptions& options) : cancellation_(options.cancellation) {
      SetTimeout(options.timeout, &context);
      if (!connection.api_key.empty()) {
        context.AddMetadata("authorization", absl::StrCat("Bearer ", connection.api_key));
      }
      if (!options.request_id.empty()) context.AddMetadata("x-request-id", options.request_id);
      if (cancellation_ == nullptr) return;
      MutexLock lock(&cancellation_->mutex_);
      cancellation_->calls_.push_back(&context);
      if (cancellation_->cancelled_) context.TryCancel();
    }
    ~Call() {
      if (cancellation_ == nullptr) return;
      MutexLock lock(&cancellation_->mutex_);
      std::erase(cancellation_->calls_, &context);
    }
    grpc::ClientContext context;

   private:
    Cancellation* const cancellation_;
  };

  static absl::Status ReadAll(grpc::ClientContext* context, grpc::ClientReader<v1::GenerateResponse>* reader,
                              OnChunk on_chunk) {
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      if (on_chunk(FromProto(message))) continue;
      context->TryCancel();
      while (reader->Read(&message)) {
      }
      break;
    }
    return ToAbsl(reader->Finish());
  }
};

absl::Status InferenceClient::CheckTls(const TlsOptions& tls) {
  return TlsClient(tls, /*follow_files=*/false).status();
}

InferenceClient::InferenceClient(const std::string& address, const Transport& transport)
    : connection_(std::make_unique<Connection>()) {
  SilenceGrpcLog();
  connection_->api_key = transport.api_key;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kClientMessageBytesMax));
  // Each client has its own connection, as separate programs would.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // A call may wait in a queue for long, but not for a coordinator that hangs or whose host is gone.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  const Proxy proxy = transport.by_proxy ? Proxy::kByEnvironment : Proxy::kNever;
  const absl::StatusOr<ChannelSecurity> security = TlsClient(transport.tls, /*follow_files=*/false);
  connection_->channel = security.ok() ? MakeChannel(address, proxy, arguments, *security) : RefusedChannel();
  connection_->stub = v1::Inference::NewStub(connection_->channel);
}

InferenceClient::~InferenceClient() = default;

absl::Status InferenceClient::Generate(const PromptInput& prompt, const GenerationOptions& options,
                                       const CallOptions& call, OnChunk on_chunk) {
  v1::GenerateRequest request;
  Encode(prompt, request.mutable_prompt());
  Encode(options, request.mutable_options());
  Connection::Call active(*connection_, call);
  const auto reader = connection_->stub->Generate(&active.context, request);
  return Connection::ReadAll(&active.context, reader.get(), on_chunk);
}

absl::Status InferenceClient::Chat(absl::Span<const ChatMessage> messages, const GenerationOptions& options,
                                   const CallOptions& call, OnChunk on_chunk) {
  v1::ChatRequest request;
  for (const ChatMessage& message : messages) {
    v1::ChatMessage* added = request.add_messages();
    added->set_role(message.role);
    added->set_content(message.content);
  }
  Encode(options, request.mutable_options());
  Connection::Call active(*connection_, call);
  const auto reader = connection_->stub->Chat(&active.context, request);
  return Connection::ReadAll(&active.context, reader.get(), on_chunk);
}

absl::StatusOr<ScoreAnswer> InferenceClient::Score(const PromptInput& prompt, const CallOptions& call) {
  v1::ScoreRequest request;
  Encode(prompt, request.mutable_prompt());
  Connection::Call active(*connection_, call);
  v1::ScoreResponse response;
  BW_RETURN_IF_ERROR(ToAbsl(connection_->stub->Score(&active.context, request, &response)));
  return ScoreAnswer{.tokens = {response.token_ids().begin(), response.token_ids().end()},
                     .logprobs = {response.logprobs().begin(), response.logprobs().end()},
                     .usage = FromProto(response.usage())};
}

absl::StatusOr<TokenizeAnswer> InferenceClient::Tokenize(const std::string& text, bool parse_special_tokens,
                                                         bool add_special_tokens) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_parse_special_tokens(parse_special_tokens);
  request.set_add_special_tokens(add_special_tokens);
  Connection::Call active(*connection_, {});
  v1::TokenizeResponse response;
  BW_RETURN_IF_ERROR(ToAbsl(connection_->stub->Tokenize(&active.context, request, &response)));
  return TokenizeAnswer{.tokens = {response.token_ids().begin(), response.token_ids().end()},
                        .bytes = {response.tokens().begin(), response.tokens().end()}};
}

absl::StatusOr<std::string> InferenceClient::Detokenize(absl::Span<const TokenId> tokens,
                                                        bool keep_special_tokens) {
  v1::DetokenizeRequest request;
  request.mutable_token_ids()->Add(tokens.begin(), tokens.end());
  request.set_keep_special_tokens(keep_special_tokens);
  Connection::Call active(*connection_, {});
  v1::DetokenizeResponse response;
  BW_RETURN_IF_ERROR(ToAbsl(connection_->stub->Detokenize(&active.context, request, &response)));
  return response.text();
}

absl::StatusOr<ServedModel> InferenceClient::GetModel(const CallOptions& call) {
  Connection::Call active(*connection_, call);
  v1::GetModelResponse response;
  BW_RETURN_IF_ERROR(ToAbsl(connection_->stub->GetModel(&active.context, v1::GetModelRequest(), &response)));
  BW_ASSIGN_OR_RETURN(GenerationOptions authors_options, Decode(response.authors_options()));
  return ServedModel{.name = response.name(),
                     .model_id = response.model_id(),
                     .architecture = response.architecture(),
                     .vocab_size = response.vocab_size(),
                     .context_tokens = response.context_tokens(),
                     .chat_template = response.chat_template(),
                     .has_tokenizer = response.has_tokenizer(),
                     .serving = response.serving(),
                     .layout = response.layout(),
                     .kernel_level = response.kernel_level(),
                     .weights = response.weights(),
                     .kv_blocks = response.kv_blocks(),
                     .not_serving_reason = response.not_serving_reason(),
                     .refused = response.refused(),
                     .authors_options = std::move(authors_options),
                     .loading_progress = response.loading_progress()};
}

absl::StatusOr<ServedModel> InferenceClient::WaitUntilServing(absl::Duration timeout,
                                                              const Cancellation* cancellation) {
  const Cancellation never;
  const Cancellation& stop = cancellation != nullptr ? *cancellation : never;
  const absl::Duration end = Clock::Real()->Now() + timeout;
  std::string reason = "no answer yet";
  while (true) {
    const absl::Duration left = end - Clock::Real()->Now();
    if (left <= absl::ZeroDuration()) break;
    absl::StatusOr<ServedModel> model =
        GetModel({.timeout = std::min(left, absl::Duration(absl::Seconds(5)))});
    if (model.ok() && model->serving) return model;
    reason = model.ok() ? model->not_serving_reason : std::string(model.status().message());
    if (stop.WaitFor(std::min(left, absl::Duration(absl::Milliseconds(50))))) {
      return absl::CancelledError("cancelled while waiting");
    }
  }
  return absl::DeadlineExceededError(
      absl::StrCat("not serving after ", absl::FormatDuration(timeout), ": ", reason));
}

}  // namespace bellwether
