#!/bin/busybox sh
# The first process of the emulated machine: brings up what the tests need, runs what /payload names, and says on the
# console how each ended. What it says to the task begins with `floodwall-vm:`.

/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin HOME=/ TMPDIR=/tmp
export FLOODWALL_BIN=/payload.d/floodwall FLOODWALL_PACKETS=60000 RUST_TEST_THREADS=1
export FLOODWALL_SLOW_MACHINE=yes

mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs none /sys/kernel/security
echo "floodwall-vm: booted $(uname -r)"
# As `none [integrity] confidentiality`.
echo "floodwall-vm: lockdown $(sed 's/.*\[//; s/\].*//' /sys/kernel/security/lockdown)"

while read -r module; do
    insmod "/modules/$module" || echo "floodwall-vm: cannot load the module $module"
done </modules/order
ip link set lo up

while read -r name arguments; do
    echo "floodwall-vm: begin $name"
    # shellcheck disable=SC2086 # Several arguments.
    timeout 1500 "/payload.d/$name" $arguments </dev/null 2>&1
    exit=$?
    echo
    echo "floodwall-vm: end $name $exit"
    # What cannot be loaded cannot be tested.
    if [ "$name $exit" = "probe 1" ]; then break; fi
done </payload
echo "floodwall-vm: complete"
poweroff -f
