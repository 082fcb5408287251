#!/bin/sh
# The first process of a machine of its own: namespaces that tests/systemd/machine.py unshared.
# $1: an empty folder to build it in, $2: a virtual environment for /opt/lunar, $3: the checkout.
set -eu
room=$1 venv=$2 checkout=$3
root=$room/root

mount -t tmpfs tmpfs "$room"
mkdir "$room/upper" "$room/work" "$root" "$room/opt-upper" "$room/opt-work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$room/upper,workdir=$room/work" "$root"
cd "$root"

mkdir -p opt/lunar etc/lunar src
mount -t overlay overlay -o "lowerdir=$venv,upperdir=$room/opt-upper,workdir=$room/opt-work" opt/lunar
for part in gateway channels session systemd config.yaml pyproject.toml README.md LICENSE; do
  cp -r "$checkout/$part" src/
done

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs dev
for node in null zero full random urandom tty; do
  touch "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for folder in dev/shm run tmp etc/systemd/system etc/credstore var/lib/systemd var/lib/private var/log; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done
mount -o remount,size=256m var/lib/private # to be filled by a test
chmod 1777 tmp dev/shm
chmod 700 var/lib/private etc/credstore
rm -rf etc/lunar/* var/lib/lunar
# Nothing of this machine's is to be touched: its devices, its kernel's settings, its modules.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
  systemd-udev-trigger.service systemd-modules-load.service systemd-remount-fs.service \
  systemd-sysctl.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service \
  systemd-tmpfiles-clean.timer systemd-update-utmp.service systemd-ask-password-console.path \
  dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount \
  dbus.socket dbus.service getty.target network.target; do
  ln -s /dev/null "etc/systemd/system/$unit"
done

chroot . /opt/lunar/bin/python -m pip install -q --disable-pip-version-check --no-index --no-deps \
  --no-build-isolation /src 2>"$room/pip" || { cat "$room/pip"; exit 1; }

mkdir old
pivot_root . old
umount -l /old
mount --make-rshared / # without it a service finds its credentials' folder empty
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
  --unit=basic.target --log-target=journal --show-status=no
