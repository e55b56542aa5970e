#!/bin/sh
# The contract of the official image: flags go to traefik.
set -eu

case "${1:-}" in -*) set -- traefik "$@" ;; esac
exec "$@"
