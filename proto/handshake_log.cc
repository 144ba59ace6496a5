#include "proto/handshake_log.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "common/mutex.h"
#include "common/tls_options.h"

namespace bellwether {
namespace {

bool Has(std::string_view text, std::string_view words) { return text.find(words) != text.npos; }

// Why a handshake failed, by gRPC's status; empty where nobody refused anybody.
std::string ReasonOf(std::string_view status) {
  static constexpr std::string_view kFailed = "handshake failed: ";
  if (Has(status, "ALPN")) return "it asks for no protocol that is spoken here (ALPN: h2)";
  const size_t failed = status.find(kFailed);
  if (failed == std::string_view::npos) return {};
  std::string_view reason = status.substr(failed + kFailed.size());
  reason = reason.substr(0, reason.find(" {"));  // gRPC's own notes
  const size_t words = reason.rfind("::");       // OpenSSL's come last
  return std::string(words == std::string_view::npos ? reason : reason.substr(words + 2));
}

}  // namespace

struct HandshakeLog::Port {
  explicit Port(std::string address_in) : address(std::move(address_in)) {}
  const std::string address;
  LogLimiter lines{/*burst=*/20, absl::Seconds(2)};
};

struct HandshakeLog::Handshake {
  std::string peer;
  std::shared_ptr<Port> port;
};

// Those under way, by gRPC's word for each. gRPC's threads outlive main, and so does this.
struct HandshakeLog::All {
  Mutex mutex;
  absl::flat_hash_map<std::string, Handshake> under_way ABSL_GUARDED_BY(mutex);
  static thread_local const Handshake* begins;  // on this thread
};
thread_local const HandshakeLog::Handshake* HandshakeLog::All::begins = nullptr;

HandshakeLog::All& HandshakeLog::TheAll() {
  static auto* all = new All;
  return *all;
}

HandshakeLog::HandshakeLog(std::string address) : port_(std::make_shared<Port>(std::move(address))) {}

void HandshakeLog::Follow(std::string peer, absl::FunctionRef<void()> hand_over) const {
  const Handshake handshake{.peer = std::move(peer), .port = port_};
  All::begins = &handshake;
  hand_over();
  All::begins = nullptr;
}

void HandshakeLog::Hear(std::string_view line) {
  // handshake_manager 0x5581: error=OK shutdown=0 index=0, args=…
  // handshake_manager 0x5581: handshaking complete -- scheduling on_handshake_done with error=…
  static constexpr std::string_view kPrefix = "handshake_manager ";
  if (!line.starts_with(kPrefix)) return;
  line.remove_prefix(kPrefix.size());
  const std::string manager(line.substr(0, line.find(": ")));
  All& all = TheAll();
  if (All::begins != nullptr && Has(line, " index=0, ")) {
    MutexLock lock(&all.mutex);
    all.under_way.insert_or_assign(manager, *All::begins);
    return;
  }
  if (!Has(line, ": handshaking complete")) return;
  Handshake handshake;
  {
    MutexLock lock(&all.mutex);
    const auto found = all.under_way.find(manager);
    if (found == all.under_way.end()) return;  // one of ours with others, who tells its errors itself
    handshake = std::move(found->second);
    all.under_way.erase(found);
  }
  const std::string reason = ReasonOf(line);
  if (reason.empty()) return;
  if (const auto more = handshake.port->lines.Admit()) {
    LogWarning(handshake.port->address, " cuts off ", handshake.peer, ": no TLS with it: ", reason,
               HandshakeAdvice(reason), AndLikeIt(*more));
  }
}

}  // namespace bellwether
