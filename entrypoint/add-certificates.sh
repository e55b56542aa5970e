#!/bin/sh
# Build time only: puts the build argument EXTRA_CA_CERTIFICATES (PEM text) among the trusted ones, one file each.
set -eu
folder=/usr/local/share/ca-certificates

printf '%s\n' "${EXTRA_CA_CERTIFICATES:-}" |
  awk -v folder="$folder" '/-----BEGIN CERTIFICATE-----/ { file = folder "/extra-" ++count ".crt" }
    file { print > file }
    /-----END CERTIFICATE-----/ { close(file); file = "" }'
exec update-ca-certificates
