#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bellwether {

// Text that somebody else wrote (a client, a peer, a file) for messages and logs, which must stay short and
// on one line.

// In quotes, with everything but printable ASCII escaped; of a long text the beginning and its length.
std::string Quoted(std::string_view text);

// For people and for formats that are UTF-8 by definition (JSON, protobuf): what is UTF-8 stays as it is, of
// other bytes each becomes "\xNN". Names of files, hosts and flags are bytes and may be anything.
std::string Printable(std::string_view text);

// Whether it is printable ASCII without spaces: a word that headers and lines can hold as it is.
bool IsPlainWord(std::string_view text);

// The first `bytes_max` bytes, less if that would cut a UTF-8 character.
std::string_view CutText(std::string_view text, size_t bytes_max);

}  // namespace bellwether
