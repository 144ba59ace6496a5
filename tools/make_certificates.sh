#!/usr/bin/env bash
# make_certificates.sh DIR [NAME ...]: certificates for TLS without an authority of one's own (docs/security.md). Makes
# DIR/authority.pem and its key where there is none yet, and for each NAME (a host's name or address, or any other word)
# DIR/NAME.pem and DIR/NAME.key; run again, it renews them, and what is there stays as it is until the new ones are whole.
# Keep authority.key away from the machines that serve. DAYS is how long they are good (365); the authority is for ten years.
set -euo pipefail

directory="${1:?usage: tools/make_certificates.sh DIR [NAME ...]}"
shift
days="${DAYS:-365}"
umask 077
mkdir -p "$directory"
cd "$directory"
work="$(mktemp -d ./.making.XXXXXX)"
trap 'rm -rf "$work"' EXIT

# openssl talks much where all is well; what it says is shown where it is not.
openssl_quietly() {
  openssl "$@" 2>"$work/said" || { cat "$work/said" >&2; exit 1; }
}

if [[ ! -e authority.pem ]]; then
  openssl_quietly req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=Bellwether authority" -keyout "$work/key" -out "$work/pem"
  mv "$work/key" authority.key
  mv "$work/pem" authority.pem
fi
for name in "$@"; do
  if [[ "$name" == authority || "$name" == */* ]]; then
    echo "make_certificates: no certificate can be called \"$name\"" >&2
    exit 2
  fi
  kind=DNS
  if [[ "$name" == *:* || "$name" =~ ^[0-9.]+$ ]]; then kind=IP; fi
  printf 'subjectAltName=%s:%s\n' "$kind" "$name" >"$work/names"
  openssl_quietly req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$work/key" \
    -out "$work/request"
  openssl_quietly x509 -req -in "$work/request" -CA authority.pem -CAkey authority.key -CAcreateserial -days "$days" \
    -extfile "$work/names" -out "$work/pem"
  mv "$work/key" "$name.key"
  mv "$work/pem" "$name.pem"
done
