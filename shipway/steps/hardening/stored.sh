#!/bin/bash
set -o pipefail
manifest=$0/manifests/etcd.yaml
[ -f "$manifest" ] || exit 3
running=$(ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" { print $1 }') || exit 3
own=$(ctr -n k8s.io containers ls -q 'labels."io.kubernetes.container.name"==etcd,labels."io.kubernetes.pod.namespace"==kube-system')
id=$(printf '%s\n' "$own" | grep -xF -- "$running" | head -n 1)
[ -n "$id" ] || exit 3
url=$(flag_in listen-client-urls "$manifest" | tr ',' '\n' | grep -e '//127\.0\.0\.1:' -e '//localhost:' -e '//\[::1\]:' | head -n 1)
prefix=$(flag_in etcd-prefix "$0/manifests/kube-apiserver.yaml")
pki=$0/pki/etcd
ctr -n k8s.io tasks exec --exec-id "shipway-look-$$-$RANDOM" "$id" etcdctl --endpoints="${url:-https://127.0.0.1:2379}" \
  --cacert="$pki/ca.crt" --cert="$pki/healthcheck-client.crt" --key="$pki/healthcheck-client.key" --command-timeout=60s \
  get "${prefix:-/registry}/secrets/" --prefix -w json 2>/dev/null |
  tr ',{' '\n\n' | sed -n 's/^"value":"\([A-Za-z0-9+\/=]\{1,40\}\).*/\1/p' | awk -v ours="$1" -v any="$2" '
    { n[index($0, ours) == 1 ? "own" : index($0, any) == 1 ? "other" : "plain"]++ }
    END { for (kind in n) print kind, n[kind] }'
