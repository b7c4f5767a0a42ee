# hooks.sh (SIMULATED by the lab): what NVIDIA's does around a change: keep the layout for the next boot, stop the kubelet
# and end the device plugin's containers, start the kubelet again where it is enabled, have the CDI file written anew.

apply-start() {
    printf '[Service]\nEnvironment="MIG_PARTED_CONFIG_FILE=%s"\nEnvironment="MIG_PARTED_HOOKS_FILE=%s"\nEnvironment="MIG_PARTED_SELECTED_CONFIG=%s"\n' \
        "$MIG_PARTED_CONFIG_FILE" "$MIG_PARTED_HOOKS_FILE" "$1" >/etc/systemd/system/nvidia-mig-manager.service.d/override.conf
    systemctl daemon-reload
}

stop-clients() {
    if systemctl -q is-active kubelet.service; then systemctl stop kubelet.service || return 1; fi
    command -v ctr >/dev/null && systemctl -q is-active containerd.service || return 0
    for one in $(ctr -n k8s.io container ls 'image~=k8s-device-plugin' -q); do
        ctr -n k8s.io task kill -a -s SIGKILL "$one" || true
        sleep 1
        ctr -n k8s.io task rm -f "$one" || true
        ctr -n k8s.io container rm "$one" || return 1
    done
}

apply-exit() {
    systemctl list-unit-files --state=enabled,generated | grep -F kubelet.service || return 0
    systemctl start --no-block kubelet.service
}

refresh-cdi() {
    if systemctl list-unit-files nvidia-cdi-refresh.service --quiet; then systemctl restart nvidia-cdi-refresh.service; fi
}
