#pragma once

namespace bellwether {

// gRPC writes errors of its own to stderr, in its own form. Both are for the start of a program.

// They become warnings of ours, few at a time; of handshakes HandshakeLog tells.
void TakeOverGrpcLog();
// For programs whose calls tell their errors themselves.
void SilenceGrpcLog();

}  // namespace bellwether
