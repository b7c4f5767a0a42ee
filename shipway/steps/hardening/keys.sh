#!/bin/bash
own=$0 etc=$1 backups=$2
kind='^[[:space:]"{]*kind"?[[:space:]]*:[[:space:]]*"?EncryptionConfig'
if [ -f "$own" ]; then
  printf 'own=%s %s\n' "$(sha256sum <"$own" | cut -c1-64)" "$(stat -c '%a,%U:%G' -- "$own")"
  grep -qE "$kind" "$own" && grep -qE '^[[:space:]]*-?[[:space:]]*secret:[[:space:]]*[A-Za-z0-9+/]{43}=' "$own" && echo whole=yes
fi
flag=$(flag_in encryption-provider-config "$etc/manifests/kube-apiserver.yaml")
[ -z "$flag" ] || printf 'flag=%s\n' "$flag"
find "$etc" -maxdepth 3 -type f ! -path "$own" \( -name '*.yaml' -o -name '*.yml' -o -name '*.json' -o -name '*.conf' \) \
  -size -256k -exec grep -lE "$kind" -- {} + 2>/dev/null | sed 's/^/other=/'
find "$backups" -mindepth 3 -type f -path '*/files/*' \( -name '*.yaml' -o -name '*.yml' -o -name '*.json' -o -name '*.conf' \) \
  -size -256k -exec grep -lE "$kind" -- {} + 2>/dev/null | sort | sed 's/^/backup=/'
true
