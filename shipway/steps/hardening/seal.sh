#!/bin/bash
set -u -o pipefail
umask 077
said=$(mktemp)
trap 'rm -f -- "$said"' EXIT
kube=(kubectl --kubeconfig=/etc/kubernetes/admin.conf --cache-dir=/var/lib/shipway/kubectl "--server=$1" --request-timeout=120s)
for try in 1 2 3 4 5; do
  failed=0
  spaces=$("${kube[@]}" get secrets --all-namespaces -o 'jsonpath={range .items[*]}{.metadata.namespace}{"\n"}{end}' 2>"$said" | sort -u) || {
    tail -n 3 "$said"; failed=1; sleep 2; continue
  }
  for space in $spaces; do
    "${kube[@]}" -n "$space" get secrets -o json 2>"$said" | "${kube[@]}" -n "$space" replace -f - >/dev/null 2>>"$said" ||
      { failed=1; printf '%s: ' "$space"; grep -oE 'Error from server[^:]*:.{0,160}' "$said" | tail -n 1; echo; }
  done
  [ "$failed" -eq 0 ] && exit 0
  sleep 2
done
exit 1
