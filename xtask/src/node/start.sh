#!/bin/sh
# Runs a command as the first process of a machine of its own, for container engines: `start STATE COMMAND...`.
# It has its own network (only the loopback at first), mounts, processes and host name; the root folder is the one beside
# this script, on which nothing is written: changes, images and containers go to the folder STATE. When the command
# ends, everything on the machine ends.
set -eu
here=$(dirname "$(readlink -f "$0")")

if [ "${1-}" != --inside ]; then
    # The outermost only waits. A cgroup namespace of its own is left out: engines look for theirs by full names.
    exec unshare --mount --propagation private --net --pid --uts --ipc --fork --kill-child sh "$0" --inside "$@"
fi
state=$2
shift 2

mkdir -p "$state/changes" "$state/work" "$state/root" "$state/containers" "$state/containerd"
root=$state/root
mount -t overlay -o "lowerdir=$here/root,upperdir=$state/changes,workdir=$state/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# Without the unified hierarchy that may stand beside those of version 1: engines take the machine for one of both.
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
for hierarchy in blkio cpu cpuacct cpuset devices freezer memory pids systemd; do
    if [ -d "/sys/fs/cgroup/$hierarchy" ]; then
        mkdir "$root/sys/fs/cgroup/$hierarchy"
        mount --rbind "/sys/fs/cgroup/$hierarchy" "$root/sys/fs/cgroup/$hierarchy"
    fi
done
# Not this machine's /dev: engines give away the devices that containers have as input and output.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod --mode=666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mknod --mode=666 "$root/dev/tty" c 5 0
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
# Engines put overlays of their own there, which cannot lie on one.
for folder in containers containerd; do
    mkdir -p "$root/var/lib/$folder"
    mount --bind "$state/$folder" "$root/var/lib/$folder"
done
# Folders of the machine around it that containers are given: images, files, databases.
mkdir -p "$root/outside"
mount --rbind / "$root/outside"
: >"$root/etc/resolv.conf"

cd "$root"
mkdir -p .old
pivot_root . .old
umount --lazy /.old
rmdir /.old
hostname node
ip link set lo up
# Reaps what daemons leave behind.
exec env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 PODMAN_IGNORE_CGROUPSV1_WARNING=1 catatonit -- "$@"
