#!/usr/bin/env bash
# make_certificates.sh DIR [NAME ...]: certificates for TLS without an authority of one's own (docs/security.md). Makes
# DIR/authority.pem and its key where there is none yet, and for each NAME (a host's name or address, or any other word)
# DIR/NAME.pem and DIR/NAME.key. Keep authority.key away from the machines that serve. DAYS is how long they are good (365).
set -euo pipefail

directory="${1:?usage: tools/make_certificates.sh DIR [NAME ...]}"
shift
days="${DAYS:-365}"
umask 077
mkdir -p "$directory"
cd "$directory"

if [[ ! -e authority.pem ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=Bellwether authority" \
    -keyout authority.key -out authority.pem 2>/dev/null
fi
for name in "$@"; do
  kind=DNS
  if [[ "$name" == *:* || "$name" =~ ^[0-9.]+$ ]]; then kind=IP; fi
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.request" \
    2>/dev/null
  openssl x509 -req -in "$name.request" -CA authority.pem -CAkey authority.key -CAcreateserial -days "$days" \
    -extfile <(printf 'subjectAltName=%s:%s\n' "$kind" "$name") -out "$name.pem.new" 2>/dev/null
  rm "$name.request"
  mv "$name.pem.new" "$name.pem"
done
