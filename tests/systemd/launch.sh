#!/bin/sh
# Unshares everything for boot.sh, with a cgroup of its own as the root of what it will see.
# $1: an empty folder, $2: a virtual environment, $3: the checkout, $4: the cgroup's name.
set -eu
mount -t cgroup2 cgroup2 "$1"
mkdir "$1/$4"
echo $$ >"$1/$4/cgroup.procs"
umount "$1"
exec unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup --propagation slave \
  sh "$(dirname "$0")/boot.sh" "$1" "$2" "$3"
