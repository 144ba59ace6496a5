#!/usr/bin/env bash
# Installs the Debian packages that the build and the tests need, as far as they are missing.
# The only list of packages in the project.
set -euo pipefail

# What becomes part of the programs, or is linked by them.
libraries=(
  libgrpc++-dev libprotobuf-dev libabsl-dev libpcre2-dev nlohmann-json3-dev libcli11-dev libspdlog-dev libssl-dev libboost-dev
  prometheus-cpp-dev libcurl4-openssl-dev
)
# For tools/make_sbom.py.
if [[ "${1:-}" == "--libraries" ]]; then printf '%s\n' "${libraries[@]}" && exit 0; fi

packages=(
  "${libraries[@]}"
  # build
  build-essential cmake ninja-build ccache mold pkg-config git
  # `file` tells cpack which programs need libraries
  file
  # what makes code of .proto
  protobuf-compiler protobuf-compiler-grpc
  # tests
  libgtest-dev libgmock-dev libbenchmark-dev python3 python3-grpcio python3-protobuf openssl
  # the demo model comes from PyPI
  python3-pip
)
# What only `make check` uses.
if [[ "${1:-}" == "--check" ]]; then packages+=(clang clang-format clang-tidy libclang-rt-14-dev python3-venv iproute2 iptables); fi
# And its phase "images", which makes them without a container engine.
if [[ "${1:-}" == "--images" ]]; then packages=(buildah mmdebstrap); fi

missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" == "install ok installed" ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then exit 0; fi

as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "setup: needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
