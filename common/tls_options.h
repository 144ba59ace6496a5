#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/host_port.h"

namespace bellwether {

// How one side of a connection is encrypted and proves who it is. All are files in PEM; empty: there is none.
struct TlsOptions {
  std::string certificate;  // ours, followed by those that lead up to its authority
  std::string key;          // of it, without a passphrase
  // Whoever's signature the other side's certificate must bear. A listener without it takes anybody; who
  // connects then goes by the system's authorities.
  std::string authority;
  // Who connects: the name that the other's certificate must have, where that is not the host's.
  std::string server_name;
  bool system_authorities = false;  // who connects: encrypt, although nothing above is given

  bool wanted() const {
    return system_authorities || !certificate.empty() || !key.empty() || !authority.empty() ||
           !server_name.empty();
  }
};

// Whether an address is more than this machine's own.
inline bool OthersCanReach(const std::string& address) {
  const absl::StatusOr<HostPort> parsed = ParseHostPort(address, /*any_port=*/true);
  return parsed.ok() && !parsed->IsLoopback();  // who uses the address says what is wrong with it
}

// The flags by which connections are encrypted, for messages.
inline constexpr char kTlsListenerFlags[] = "--tls-certificate and --tls-key";
inline constexpr char kTlsClientFlags[] = "--tls-authority (or --tls, for one that the system trusts)";
inline constexpr char kTlsForUp[] = "certificates to a coordinator and a worker that you start yourself";
inline constexpr char kTlsClusterFlags[] =
    "--cluster-tls-certificate, --cluster-tls-key and --cluster-tls-authority";

// What is said in clear to other machines must have been asked for: InvalidArgument, with the `missing`
// flags, unless `address`, which `flag` gave, is this machine's own.
inline absl::Status CheckPlaintext(std::string_view flag, const std::string& address,
                                   std::string_view missing) {
  if (!OthersCanReach(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(flag), " ", address,
                   " is not this machine alone, and nothing would be encrypted: give ", std::string(missing),
                   " (docs/security.md), or --insecure where everybody on the network may read and answer"));
}

// What is behind an error of a connection, where TLS has to do with it, for people; else "". `ours`: as it
// was opened.
inline std::string TlsAdvice(std::string_view error, const TlsOptions& ours) {
  const auto has = [&](std::string_view words) { return error.find(words) != std::string_view::npos; };
  if (has("Hostname Verification Check failed"))
    return "; its certificate is for another name than this: say which by tls-server-name";
  if (has("certificate verify failed"))
    return "; its certificate is not signed by the authority that is trusted here, has expired, or is not "
           "for servers";
  if (has("wrong version number")) return "; it does not speak TLS";
  if (!has("Socket closed")) return "";
  return ours.wanted() ? "; perhaps it wants a certificate of another authority" : "; perhaps it wants TLS";
}

// The same for a listener, of a handshake that has failed.
inline std::string HandshakeAdvice(std::string_view error) {
  const auto has = [&](std::string_view words) { return error.find(words) != std::string_view::npos; };
  if (has("certificate verify failed"))
    return "; its certificate is not signed by the authority that is asked for here, or has expired";
  if (has("http request") || has("wrong version number")) return "; it does not speak TLS";
  if (has("unsupported protocol")) return "; it knows nothing newer than TLS 1.1";
  if (has("alert")) return "; it does not take the certificate of this port";
  return "";
}

}  // namespace bellwether
