#!/bin/sh
# Finishes a host's root file system: ROOT ASSETS USER
set -eu
root=$1 assets=$2 user=$3

install -D -m 755 "$assets/boot" "$root/usr/lib/lab/boot"
install -D -m 755 "$assets/swap" "$root/usr/lib/lab/swap"
install -D -m 644 "$assets/lab-boot.service" "$root/etc/systemd/system/lab-boot.service"
install -D -m 644 "$assets/ssh-host-keys.service" "$root/etc/systemd/system/ssh-host-keys.service"

chroot "$root" useradd --create-home --shell /bin/bash "$user"
printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" > "$root/etc/sudoers.d/$user"
chmod 440 "$root/etc/sudoers.d/$user"
chroot "$root" install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"

# Each host makes its own identity when it first boots.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/etc/apt/sources.list" "$root/etc/hostname" \
    "$root"/etc/apt/sources.list.d/*
: > "$root/etc/machine-id"
chroot "$root" systemctl enable lab-boot.service ssh-host-keys.service ssh.service
chroot "$root" systemctl mask getty@tty1.service console-getty.service systemd-networkd-wait-online.service
printf '# /etc/fstab: static file system information.\n' > "$root/etc/fstab"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
