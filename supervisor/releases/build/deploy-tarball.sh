#!/bin/sh
# Brings a release into a running container. Made by `supervisor release build`; needs Docker's command line only.
set -eu

usage() {
  cat <<'EOT'
usage: deploy-tarball.sh CONTAINER FILE

Copies the archive FILE, with the manifest.json and manifest.json.minisig beside it, into CONTAINER, where
`supervisor release apply` verifies it, tries it under traffic, and goes back to the old release if it fails. The copies
are removed in any case; the release that was unpacked stays.

Exits with the code of `supervisor release apply`: 0 applied, 1 refused or rolled back; or with 64 for a usage error,
66 where FILE cannot be used, 69 where Docker, the container or its supervisor cannot.
EOT
}

say() { printf 'deploy-tarball: %s\n' "$*" >&2; }
cannot() {
  say "cannot deploy to container '$container': $2"
  exit "$1"
}
last_line() { printf '%s\n' "$1" | tail -n 1; }

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
if [ $# -ne 2 ] || [ -z "$1" ] || [ -z "$2" ]; then usage >&2 && exit 64; fi
case "$1" in -*) usage >&2 && exit 64 ;; esac
container=$1

if ! [ -f "$2" ] || ! [ -r "$2" ]; then cannot 66 "there is no file '$2' that can be read; name the archive"; fi
folder=$(CDPATH='' cd -- "$(dirname -- "$2")" && pwd -P)
name=$(basename -- "$2")
manifest=$folder/manifest.json
signature=$manifest.minisig
# Without a manifest it is an archive of an older tool, which the supervisor knows as such.
if [ -f "$manifest" ] && ! grep -qF "\"file\": \"$name\"" "$manifest"; then
  cannot 66 "the manifest.json beside '$name' is that of another archive; put the two that were built together there"
fi

command -v docker >/dev/null || cannot 69 "there is no command 'docker' here; install Docker's command line"
state=$(docker container inspect --format '{{.State.Status}}' "$container" 2>&1) ||
  cannot 69 "$(last_line "$state"); \`docker ps\` lists those that run"
[ "$state" = running ] || cannot 69 "it is $state; start it first (docker start $container)"

code=0
answer=$(docker exec "$container" supervisor release apply --help 2>&1) || code=$?
case $code in
  0) ;;
  126 | 127) cannot 69 "it has no program 'supervisor' that can be run: $(last_line "$answer")" ;;
  *) cannot 69 "its supervisor knows no \`release apply\` (it ends with $code); update the supervisor in its image" ;;
esac

there=$(docker exec "$container" mktemp -d /tmp/release.XXXXXXXX 2>&1) ||
  cannot 69 "no folder can be made in its /tmp: $(last_line "$there")"
trap 'docker exec "$container" rm -rf -- "$there" >/dev/null 2>&1 || true' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# `docker cp` does not reach a tmpfs, nor a container whose root is read-only: then through a program in it.
copy() {
  if docker cp "$1" "$container:$there/$2" >/dev/null 2>&1 && docker exec "$container" test -r "$there/$2"; then return; fi
  # shellcheck disable=SC2016 # the shell in the container fills it in
  docker exec -i "$container" sh -c 'cat >"$1"' sh "$there/$2" <"$1" ||
    cannot 69 "'$2' cannot be copied to its $there; is there room for it?"
}

copy "$folder/$name" "$name"
set -- supervisor release apply "$there/$name"
if [ -f "$manifest" ]; then copy "$manifest" manifest.json && set -- "$@" --manifest "$there/manifest.json"; fi
if [ -f "$manifest" ] && [ -f "$signature" ]; then
  copy "$signature" manifest.json.minisig && set -- "$@" --signature "$there/manifest.json.minisig"
fi
code=0
docker exec "$container" "$@" || code=$?
exit "$code"
