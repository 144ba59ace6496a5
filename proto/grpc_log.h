#pragma once

#include <string>

namespace bellwether {

// gRPC writes errors of its own to stderr, in its own form. Both are for the start of a program.

// They become warnings of ours, few at a time: strangers can bring them about, for instance by bad
// certificates.
void TakeOverGrpcLog();
// Who has connected, and to which address of ours: gRPC does not name him when his handshake fails, so such a
// line names the last one. Any thread.
void NoteConnection(const std::string& from, const std::string& to);
// For programs whose calls tell their errors themselves.
void SilenceGrpcLog();

}  // namespace bellwether
