#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/inference_client.h"
#include "cli/load/load_target.h"
#include "cli/stop.h"

namespace bellwether {
namespace {

class GrpcConnection : public LoadConnection {
 public:
  GrpcConnection(std::unique_ptr<InferenceClient> client, const LoadSampling& sampling)
      : client_(std::move(client)), sampling_(sampling) {}

  LoadAnswer Send(const LoadRequest& request, absl::FunctionRef<void(int tokens)> on_piece) override {
    const GenerationOptions options{.max_tokens = request.max_tokens,
                                    .temperature = sampling_.temperature,
                                    .seed = request.seed,
                                    .ignore_eos = !sampling_.stop_at_eos};
    LoadAnswer answer;
    std::string finish_reason;
    const auto on_chunk = [&](const AnswerChunk& chunk) {
      if (!chunk.tokens.empty()) on_piece(static_cast<int>(chunk.tokens.size()));
      if (!chunk.finish_reason.empty()) finish_reason = chunk.finish_reason;
      if (chunk.usage.has_value()) {
        answer.prompt_tokens = chunk.usage->prompt_tokens;
        answer.generated_tokens = chunk.usage->generated_tokens;
      }
      return true;
    };
    const CallOptions call{.cancellation = StopCancellation()};
    absl::Status status;
    if (!request.messages.empty()) {
      status = client_->Chat(request.messages, options, call, on_chunk);
    } else if (request.text.has_value()) {
      status = client_->Generate({.text = request.text}, options, call, on_chunk);
    } else {
      status = client_->Generate({.token_ids = request.token_ids}, options, call, on_chunk);
    }
    if (!status.ok()) {
      answer.error = absl::StatusCodeToString(status.code());
      answer.why = std::string(status.message());
    }
    if (status.ok() && finish_reason != "stop" && finish_reason != "length")
      answer.error = absl::StrCat("finished as \"", finish_reason, "\"");
    return answer;
  }

 private:
  const std::unique_ptr<InferenceClient> client_;
  const LoadSampling sampling_;
};

class GrpcTarget : public LoadTarget {
 public:
  GrpcTarget(const Session& session, const LoadSampling& sampling) : session_(session), sampling_(sampling) {}

  std::string Describe() const override { return absl::StrCat("gRPC, ", session_.address()); }
  std::optional<int32_t> vocabulary() const override { return session_.model().vocab_size; }
  std::unique_ptr<LoadConnection> NewConnection() override {
    return std::make_unique<GrpcConnection>(session_.NewClient(), sampling_);
  }

 private:
  const Session& session_;
  const LoadSampling sampling_;
};

}  // namespace

std::unique_ptr<LoadTarget> NewGrpcTarget(const Session& session, const LoadSampling& sampling) {
  return std::make_unique<GrpcTarget>(session, sampling);
}

}  // namespace bellwether
