#include "proto/grpc_log.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "proto/handshake_log.h"

namespace bellwether {
namespace {

void LogAsOurs(gpr_log_func_args* line) {
  static auto* limiter = new LogLimiter(/*burst=*/20, absl::Seconds(2));
  if (line->severity < GPR_LOG_SEVERITY_ERROR) return HandshakeLog::Hear(line->message);
  // The trace says it again, and whose it was. Who asks for another name is shown the certificate too, and
  // says what he thinks of it.
  for (const char* told : {"Handshake failed ", "No match found for server name"}) {
    if (absl::StartsWith(line->message, told)) return;
  }
  if (const auto left_out = limiter->Admit()) {
    LogWarning("gRPC: ", absl::StripAsciiWhitespace(line->message), AndLikeIt(*left_out));
  }
}

}  // namespace

void TakeOverGrpcLog() {
  gpr_set_log_function(LogAsOurs);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_INFO);  // that of traces
  grpc_tracer_set_enabled("handshaker", 1);
}
void SilenceGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace bellwether
