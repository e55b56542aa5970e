#!/bin/sh
# The ENTRYPOINT of our images. Nothing, or flags: `supervisor run` with them as PID 1. Anything else: that command.
set -eu
umask 022

case "${1:-}" in
  "" | -*) set -- supervisor run "$@" ;;
esac
exec "$@"
