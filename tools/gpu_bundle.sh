#!/usr/bin/env bash
# Collects programs and the libraries they need, but for libc's own and the driver's, so that they run on another
# x86-64 Linux with glibc 2.36 or later:  tools/gpu_bundle.sh DIRECTORY PROGRAM...
# makes DIRECTORY, with the libraries in DIRECTORY/lib, where the programs look for them. make gpu-bundle makes an archive of it.
set -euo pipefail
directory=$1
shift
[[ ! -e "$directory" || -d "$directory/lib" ]] || { echo "bundle: $directory is something else" >&2; exit 2; }
rm -rf "$directory"
mkdir -p "$directory/lib"
for program in "$@"; do
  strip -o "$directory/$(basename "$program")" "$program"
  ldd "$program" | awk '$3 ~ /^\// { print $3 }' |
    { grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux-x86-64|libcuda)\.so' || true; } |
    while read -r library; do cp -uL "$library" "$directory/lib/"; done
done
echo "bundle: $directory, $(du -sb --apparent-size "$directory" | awk '{ printf "%.1f", $1 / 1e6 }') MB" >&2
