#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "common/program_flags.h"
#include "common/tls_options.h"

namespace bellwether {

// The flags of TLS, the same in every program. Included by each main and by the tool's flags alone, as
// common/program_flags.h is.

inline constexpr char kInsecureHelp[] =
    "Talk to other machines without encryption, where no TLS is given: everybody on the way may read and "
    "answer";

inline constexpr char kJoinSecretHelp[] =
    "File of a secret, the same for the coordinator and its workers, without which none joins; where others "
    "can "
    "read the network it needs TLS";

// --PREFIXtls-certificate and so on. `others` are those on the other side.
inline void AddTlsFlags(CLI::App* app, const std::string& prefix, TlsOptions* options,
                        const std::string& others) {
  const std::string flag = absl::StrCat("--", prefix, "tls-");
  AddFlag(app, flag + "certificate", options->certificate,
          absl::StrCat("PEM file: the certificate that is shown to ", others));
  AddFlag(app, flag + "key", options->key, "PEM file of its key, without a passphrase");
  AddFlag(app, flag + "authority", options->authority,
          absl::StrCat("PEM file: whose signature the certificate of ", others, " must bear"));
}

// Of who connects, beside the above.
inline void AddServerNameFlag(CLI::App* app, const std::string& prefix, TlsOptions* options) {
  AddFlag(app, absl::StrCat("--", prefix, "tls-server-name"), options->server_name,
          "The name that the other side's certificate has, where it is not the host's");
}

}  // namespace bellwether
