#!/bin/bash
etc=$0 kubelet=$1 etcd=$2
wide() { find "${@:2}" \( -perm "/$1" -o ! -user root -o ! -group root \) -printf "$1 %m %u:%g %p\n" 2>/dev/null; }
for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
  wide 177 "$etc/manifests/$part.yaml" -maxdepth 0 -type f
done
wide 177 "$etc" -maxdepth 1 -type f -name '*.conf'
wide 177 "$etc/shipway" -maxdepth 1 -type f
wide 177 "$etc/pki" -type f -name '*.key'
wide 133 "$etc/pki" -type f -name '*.crt'
wide 177 "$kubelet/config.yaml" "$kubelet/kubeadm-flags.env" -maxdepth 0 -type f
wide 177 "$kubelet/pki" -type f \( -name '*.key' -o -name '*.pem' \)
wide 077 "$etcd" -maxdepth 0 -type d
true
