#!/usr/bin/env bash
# Makes the certificates of this folder anew (OpenSSL 3): keys of P-256, valid from 2000 to 2126, but for the one that expired in 2001.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$work/index.txt"

# usage: issue FILE NAME FROM TO
issue() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/key" -out "$work/csr" -subj "/CN=$2" 2>/dev/null
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index.txt\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n[site]\nsubjectAltName=DNS:%s\n[authority]\nbasicConstraints=critical,CA:true\n' \
    "$work" "$work" "$2" >"$work/conf"
  local signer=(-cert authority.pem -keyfile "$work/authority.key" -extensions site)
  [ "$1" != authority.pem ] || { cp "$work/key" "$work/authority.key"; signer=(-selfsign -keyfile "$work/key" -extensions authority); }
  [ "$1" != self-signed.pem ] || signer=(-selfsign -keyfile "$work/key" -extensions site)
  openssl ca -batch -notext -config "$work/conf" "${signer[@]}" -in "$work/csr" -startdate "$3" -enddate "$4" -out "$work/cert" 2>/dev/null
  cat "$work/key" "$work/cert" >"$1"
}
issue authority.pem "Ancrage tests" 20000101000000Z 21260101000000Z
# Nobody needs its key any more.
openssl x509 -in authority.pem -out "$work/cert" && cp "$work/cert" authority.pem
issue valid.pem receiver.example 20000101000000Z 21260101000000Z
issue expired.pem receiver.example 20000101000000Z 20010101000000Z
issue other-name.pem other.example 20000101000000Z 21260101000000Z
issue self-signed.pem receiver.example 20000101000000Z 21260101000000Z
