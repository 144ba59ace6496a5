# Everything that is not ours. The Debian packages behind it are listed once, in tools/setup.sh.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(CURL 7.87 REQUIRED)  # for `bellwether load`
find_package(Boost 1.74 REQUIRED)  # headers: Beast and Asio
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)

set(BELLWETHER_COMMON_LIBRARIES
  absl::status absl::statusor absl::strings absl::str_format absl::span absl::synchronization
  absl::time absl::flat_hash_map absl::flat_hash_set absl::cord
  spdlog::spdlog Threads::Threads ${CMAKE_DL_LIBS})
