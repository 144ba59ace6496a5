#!/usr/bin/env bash
# Prints the folder of Debian's Prometheus (bin/prometheus, bin/promtool, share/prometheus/web), fetching it once into build/. Unpacked,
# not installed: the package would take 96 MB of the system and start a server of its own on port 9090.
set -euo pipefail
cd "$(dirname "$0")/.."

root="$PWD/build/prometheus"
# Its pages use the scripts that the others bring.
packages=(prometheus fonts-glyphicons-halflings libjs-bootstrap4 libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery
          libjs-jquery-hotkeys libjs-moment libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw)

if [[ ! -x "$root/usr/bin/prometheus" ]]; then
  mkdir -p build
  work="$(mktemp -d build/fetch_prometheus.XXXXXX)"
  trap 'rm -rf "$work"' EXIT
  echo "prometheus: fetching Debian's package (about 20 MB)" >&2
  (cd "$work" && apt-get download -qq "${packages[@]}" 2>/dev/null) ||
    { echo "prometheus: apt-get cannot download it; does \`apt-get update\` work here?" >&2; exit 1; }
  for package in "$work"/*.deb; do dpkg --extract "$package" "$work/root"; done
  rm -rf "$root"
  mv "$work/root" "$root"
fi
echo "$root/usr"
