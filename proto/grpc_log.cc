#include "proto/grpc_log.h"

#include <grpc/support/log.h>

#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "common/mutex.h"

namespace bellwether {
namespace {

// gRPC's threads outlive main, and so does what they use.
struct LastConnection {
  Mutex mutex;
  std::string words ABSL_GUARDED_BY(mutex);
};
LastConnection& TheLastConnection() {
  static auto* last = new LastConnection;
  return *last;
}

// Who may have brought it about, where gRPC knows but does not say.
std::string Culprit(std::string_view message) {
  if (message.find("Handshake ") == std::string_view::npos) return {};  // failed, timed out
  LastConnection& last = TheLastConnection();
  MutexLock lock(&last.mutex);
  return last.words;
}

void LogAsOurs(gpr_log_func_args* line) {
  static auto* limiter = new LogLimiter(/*burst=*/20, absl::Seconds(2));
  if (line->severity < GPR_LOG_SEVERITY_ERROR) return;
  const auto left_out = limiter->Admit();
  if (!left_out.has_value()) return;
  LogWarning("gRPC: ", absl::StripAsciiWhitespace(line->message), Culprit(line->message),
             AndLikeIt(*left_out));
}

}  // namespace

void NoteConnection(const std::string& from, const std::string& to) {
  LastConnection& last = TheLastConnection();
  MutexLock lock(&last.mutex);
  last.words = absl::StrCat(" (", from, " was the last to connect to ", to, ")");
}
void TakeOverGrpcLog() { gpr_set_log_function(LogAsOurs); }
void SilenceGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace bellwether
