#include "proto/grpc_log.h"

#include <grpc/support/log.h>

#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "common/log.h"
#include "common/log_limiter.h"

namespace bellwether {
namespace {

void LogAsOurs(gpr_log_func_args* line) {
  static auto* limiter = new LogLimiter(/*burst=*/5, absl::Seconds(10));  // gRPC's threads outlive main
  if (line->severity < GPR_LOG_SEVERITY_ERROR) return;
  const auto left_out = limiter->Admit();
  if (!left_out.has_value()) return;
  LogWarning("gRPC: ", absl::StripAsciiWhitespace(line->message), AndLikeIt(*left_out));
}

}  // namespace

void TakeOverGrpcLog() { gpr_set_log_function(LogAsOurs); }
void SilenceGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace bellwether
