#!/usr/bin/env bash
# Collects programs and the libraries they need, but for libc's own and the driver's, so that they run on another
# x86-64 Linux with glibc 2.36 or later:  tools/gpu_bundle.sh DIRECTORY PROGRAM...
#   LD_LIBRARY_PATH=DIRECTORY/lib DIRECTORY/PROGRAM
set -euo pipefail
directory=$1
shift
mkdir -p "$directory/lib"
for program in "$@"; do
  strip -o "$directory/$(basename "$program")" "$program"
  ldd "$program" | awk '$3 ~ /^\// { print $3 }' |
    { grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux-x86-64|libcuda)\.so' || true; } |
    while read -r library; do cp -uL "$library" "$directory/lib/"; done
done
du -sh "$directory" >&2
