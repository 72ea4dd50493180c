#!/usr/bin/env bash
# Runs a command in a Debian trixie folder that has Swift, with a directory of this machine at /package.
# usage: trixie.sh DIRECTORY COMMAND ARGUMENT…
#
# Debian bookworm has no Swift; trixie has. The folder is $HCP_TRIXIE, else /var/tmp/hcp-trixie; it takes 3.1 GB and a few
# minutes, is made when it is missing and kept. Making it and entering it take root.
set -euo pipefail

readonly folder=${HCP_TRIXIE:-/var/tmp/hcp-trixie}
# Written last, so that a folder that was not finished is begun anew.
readonly ready=$folder/.swift-ready

fail() {
  echo "trixie.sh: $*" >&2
  exit 1
}

make_folder() {
  command -v debootstrap >/dev/null || fail 'debootstrap is missing: apt-get install debootstrap'
  echo "Making a Debian trixie folder with Swift at $folder: 3.1 GB"
  rm -rf "$folder"
  mkdir -p "$folder"
  debootstrap --variant=minbase --include=ca-certificates trixie "$folder" >"$folder.log" ||
    fail "debootstrap failed; its messages are in $folder.log"
  enter / sh -c 'apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      swiftlang libc6-dev libstdc++-14-dev' >>"$folder.log" 2>&1 ||
    fail "installing Swift failed; its messages are in $folder.log"
  touch "$ready"
}

# enter WORKING_DIRECTORY COMMAND…
# Mounts in a namespace of its own, so that nothing stays mounted, however this ends. Swift needs /proc to find itself.
enter() {
  local propagation=private
  # The root of a folder that was entered with chroot is no mount point, and its propagation cannot be changed.
  unshare --mount true 2>/dev/null || propagation=unchanged
  unshare --mount --propagation "$propagation" bash -c '
    set -euo pipefail
    folder=$1 package=$2 directory=$3
    shift 3
    mount --rbind /proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    mkdir -p "$folder/package"
    if [ -n "$package" ]; then mount --bind "$package" "$folder/package"; fi
    exec chroot "$folder" /usr/bin/env -i HOME=/root LANG=C.UTF-8 \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      sh -c "cd \"\$1\" && shift && exec \"\$@\"" sh "$directory" "$@"
  ' bash "$folder" "$package" "$@"
}

[ "$#" -ge 2 ] || fail 'usage: trixie.sh DIRECTORY COMMAND ARGUMENT…'
[ "$(id -u)" -eq 0 ] || fail 'entering a Debian folder takes root: run it with sudo'
package=''
[ -e "$ready" ] || make_folder
package=$(realpath "$1")
shift
enter /package "$@"
