#pragma once

#include <string>

namespace bellwether {

// The standard services of gRPC, asked by hand: Debian ships no generated code for their clients. And
// messages that no generated code would send.

// "SERVING", "NOT_SERVING", "UNKNOWN", or the call's error. An empty service asks for the server as a whole.
std::string HealthOf(const std::string& address, const std::string& service = "");

// What grpc.reflection.v1alpha answers to "list_services", undecoded: it holds the names as plain text. Empty
// if the call fails.
std::string ReflectedServices(const std::string& address);

// Code and text of the status that ends a call of `method`, such as "/package.Service/Method", with these
// bytes as its message: "3: prompt is empty".
std::string EndOf(const std::string& address, const std::string& method, const std::string& request);

}  // namespace bellwether
