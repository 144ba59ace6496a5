#include "cli/session.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/config.h"
#include "common/host_port.h"
#include "common/status.h"
#include "model/generation_defaults.h"

namespace bellwether {
namespace {
constexpr absl::Duration kConnectLimit = absl::Seconds(10);

absl::Status CheckSecurity(const SessionOptions& options) {
  if (!options.insecure && !options.tls.wanted())
    return CheckPlaintext("--connect", options.connect, kTlsClientFlags);
  return InferenceClient::CheckTls(options.tls);
}

}  // namespace

absl::StatusOr<Session> Session::Open(const SessionOptions& options) {
  Session session;
  session.address_ = options.connect;
  session.model_defaults_ = options.model_defaults;
  if (!options.connect.empty()) BW_RETURN_IF_ERROR(CheckSecurity(options));
  if (session.address_.empty()) {
    if (options.cluster.model.empty()) {
      return absl::InvalidArgumentError(
          "say which model: --model PATH, or --connect HOST:PORT of a coordinator");
    }
    StatusLine line;
    BW_ASSIGN_OR_RETURN(
        session.cluster_,
        ManagedCluster::Start(options.cluster, [&](const std::string& text) { line.Show(text); }));
    session.address_ = session.cluster_->address();
    session.model_ = session.cluster_->model();
  }
  BW_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(session.address_));
  const std::string proxy = address.IsLoopback() ? "" : ProxyVariable(address.host);
  session.transport_.by_proxy = !proxy.empty();
  if (session.cluster_ == nullptr) {  // a private one is this machine's own
    session.transport_.tls = options.tls;
    session.transport_.api_key = options.api_key;
  }
  if (session.transport_.by_proxy) {
    session.way_ = absl::StrCat(" through the proxy that ", proxy, " names; no_proxy=", address.host,
                                " goes straight there");
    std::fprintf(stderr, "connecting to %s%s\n", session.address_.c_str(), session.way_.c_str());
  }
  session.client_ = session.NewClient();
  if (session.cluster_ == nullptr) {
    auto model = session.client_->GetModel({.timeout = kConnectLimit, .cancellation = StopCancellation()});
    if (!model.ok()) {
      const std::string reason(model.status().message());
      return absl::Status(model.status().code(),
                          absl::StrCat("no coordinator answers at ", options.connect, session.way_, ": ",
                                       reason, TlsAdvice(reason, options.tls)));
    }
    session.model_ = *std::move(model);
  }
  return session;
}

std::unique_ptr<InferenceClient> Session::NewClient() const {
  return std::make_unique<InferenceClient>(address_, transport_);
}

absl::Status Session::Explain(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return status;
  // A coordinator that is there has said itself what is unavailable.
  if (client_->GetModel({.timeout = kConnectLimit, .cancellation = StopCancellation()}).ok()) return status;
  return Annotate(status, absl::StrCat("the connection to ", address_,
                                       " was lost (the coordinator ended or cannot be reached)"));
}

GenerationOptions Session::WithDefaults(GenerationOptions options) const {
  if (model_defaults_) FillIn(model_.authors_options, options);
  return options;
}

absl::Status Session::Supervise(const std::function<bool()>& stop) {
  return cluster_ == nullptr ? absl::OkStatus() : cluster_->Supervise(stop);
}

absl::Status Session::Close() {
  client_.reset();
  if (cluster_ == nullptr) return absl::OkStatus();
  absl::Status status = cluster_->Stop();
  cluster_.reset();
  return status;
}

}  // namespace bellwether
