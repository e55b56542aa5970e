#!/usr/bin/env bash
# usage: entrypoint.sh TRIGGER COMMAND...
# The entrypoint many containers have: every 3 s it looks at the trigger file; touched, the app is killed, waited for
# and started again; so is one that has ended.
trigger="$1"
shift

seen="$(stat -c %y "$trigger" 2>/dev/null)"
trap 'kill "$app" 2>/dev/null; exit 0' TERM
"$@" &
app=$!
while true; do
  sleep 3 &
  wait $!
  now="$(stat -c %y "$trigger" 2>/dev/null)"
  if [[ "$now" != "$seen" ]]; then
    seen="$now"
    kill "$app"
    wait "$app"
    "$@" &
    app=$!
  elif ! kill -0 "$app" 2>/dev/null; then
    "$@" &
    app=$!
  fi
done
