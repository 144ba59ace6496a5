#!/usr/bin/env bash
# Prints the path of Debian's Chromium without a screen, fetching it once into build/ with the libraries that this machine lacks.
# Unpacked, not installed: it is for one test alone.
set -euo pipefail
cd "$(dirname "$0")/.."

root="$PWD/build/chromium"
if [[ ! -x "$root/chromium" ]]; then
  mkdir -p build
  work="$(mktemp -d build/fetch_chromium.XXXXXX)"
  trap 'rm -rf "$work"' EXIT
  echo "chromium: fetching Debian's package (about 100 MB)" >&2
  # What an installation would bring; what is installed already is fetched where it is the browser itself.
  mapfile -t packages < <(apt-get --simulate --no-install-recommends install chromium-headless-shell | awk '$1 == "Inst" { print $2 }')
  (cd "$work" && apt-get download -qq chromium-headless-shell chromium-common "${packages[@]}" 2>/dev/null) ||
    { echo "chromium: apt-get cannot download it; does \`apt-get update\` work here?" >&2; exit 1; }
  for package in "$work"/*.deb; do dpkg --extract "$package" "$work/root"; done
  cat >"$work/root/chromium" <<'EOF'
#!/usr/bin/env bash
usr="$(dirname "$0")/usr"
export LD_LIBRARY_PATH="$(find "$usr/lib" -path '*-linux-gnu*' -type d -printf '%p:')"
exec "$usr/lib/chromium/chromium-headless-shell" "$@"
EOF
  chmod +x "$work/root/chromium"
  rm -rf "$root"
  mv "$work/root" "$root"
fi
echo "$root/chromium"
