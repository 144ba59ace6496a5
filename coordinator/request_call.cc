#include "coordinator/request_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "coordinator/trace_context.h"

namespace bellwether {
namespace {

absl::Status TooManyWait() {
  return absl::ResourceExhaustedError("too many requests are waiting to be read; try again later");
}
absl::Status CancelledByClient() { return absl::CancelledError("cancelled by the client"); }

}  // namespace

RequestCall::RequestCall(RequestService* service, Caller caller)
    : service_(service),
      first_id_(service->engine().NewRequestId()),
      deadline_(service->clock().Now() + caller.time_left),
      request_id_(std::move(caller.request_id)),
      client_(service->ClientOf(caller.authorization)) {
  if (!TraceIdOf(caller.traceparent).empty()) traceparent_ = std::move(caller.traceparent);
  if (!request_id_.empty()) request_id_status_ = ValidateRequestId(request_id_);
  if (request_id_.empty() || !request_id_status_.ok())
    request_id_ = absl::StrFormat("req-%d", first_id_.value);
}

void RequestCall::Start(size_t reading_bytes) {
  if (!client_.ok()) {
    if (Take()) Refuse(client_.status());
    return;
  }
  const bool posted = service_->TryPost(reading_bytes, [self = shared_from_this()] {
    if (!self->Take()) return;
    if (!self->request_id_status_.ok()) return self->Refuse(self->request_id_status_);
    if (const absl::Status given_up = self->GivenUp(); !given_up.ok()) return self->Refuse(given_up);
    self->Read();
  });
  if (!posted && Take()) Refuse(TooManyWait());
}

void RequestCall::Cancel() {
  cancelled_ = true;  // whoever reads looks at it
  if (Take()) return Refuse(CancelledByClient());
  CancelSubmitted();
}

absl::Status RequestCall::GivenUp() const {
  if (cancelled_) return CancelledByClient();
  if (service_->clock().Now() < deadline_) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline has passed before the prompt was read");
}

absl::Status RequestCall::Submit(EngineRequest request, std::shared_ptr<RequestObserver> observer,
                                 LogFields part) {
  LogFields fields = Fields();
  fields.insert(fields.end(), part.begin(), part.end());
  MutexLock lock(&mutex_);
  request.id = submitted_.empty() ? first_id_ : service_->engine().NewRequestId();
  request.deadline = deadline_;
  if (client_.ok()) request.client = *client_;
  observer = service_->Overhear(request, std::move(fields), std::move(observer));
  const RequestId id = request.id;
  BW_RETURN_IF_ERROR(service_->engine().Submit(std::move(request), std::move(observer)));
  submitted_.push_back(id);
  // A cancel that came before the engine knew the request has to be said again.
  if (cancelled_) service_->engine().Cancel(id);
  return absl::OkStatus();
}

void RequestCall::CancelSubmitted() {
  cancelled_ = true;
  MutexLock lock(&mutex_);
  for (const RequestId id : submitted_) service_->engine().Cancel(id);
}

LogFields RequestCall::Fields() const {
  LogFields fields = {{"request", request_id_}};
  if (client_.ok() && !client_->empty()) fields.push_back({"client", *client_});
  if (!traceparent_.empty()) fields.push_back({"trace", TraceIdOf(traceparent_)});
  return fields;
}

void RequestCall::LogEnd(const absl::Status& status) const { service_->LogEnd(Fields(), status); }

absl::Status RequestCall::Named(const absl::Status& status) const {
  return Annotate(status, absl::StrCat("request ", request_id_));
}

}  // namespace bellwether
