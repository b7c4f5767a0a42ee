#!/bin/bash
set -eu
umask 077
file=$1
folder=${file%/*}
install -d -m 700 -- "$folder"
part=$(mktemp "$folder/.key.XXXXXX")
trap 'rm -f -- "$part"' EXIT
key=$(head -c 32 /dev/urandom | base64 -w0)
[ "${#key}" -eq 44 ]
printf '%s\n' 'apiVersion: apiserver.config.k8s.io/v1' 'kind: EncryptionConfiguration' 'resources:' \
  '- resources: [secrets]' '  providers:' '  - secretbox:' '      keys:' '      - name: shipway1' \
  "        secret: $key" '  - identity: {}' > "$part"
sync -f -- "$part"
ln -T -- "$part" "$file"
sync -f -- "$folder"
