#!/bin/bash
# Backups of this control plane's etcd: `take` takes, verifies and keeps one, `verify DIR` restores one that is there
# into a throw-away etcd, `restore DIR` puts one in the place of the cluster's data, `look` only looks. Of several control
# planes: `stop DIR ID LEAD` before, `aside DIR ID` after the restore on another one, `start` to take the stop back; and
# `adopt DIR ID LEAD NAME PEER` on a host that holds nothing. Shipway puts this file here and runs it; so does its timer,
# with no Shipway at hand. What ends it says `shipway-backup[TAG]: WHY` on its last line.
set -u -o pipefail
umask 077
export LC_ALL=C ETCDCTL_API=3
#SETTINGS

NAMED='^[0-9]{8}T[0-9]{6}Z$'
UNIT=shipway-backup-verify.service
ROOM=268435456 # bytes beside twice the database: two write-ahead logs of 64 MiB, twice
part=''

say() { printf 'shipway-backup: %s\n' "$*"; }
fail() { # TAG WORDS...
  printf 'shipway-backup[%s]: %s\n' "$1" "$(printf '%s' "${*:2}" | tr -s '\000-\037' ' ' | tail -c 600)"
  exit 1
}
plain() { # for JSON: what is neither printable nor harmless goes
  local text=${1//[^ -~]/}
  printf '%s' "${text//[\\\"]/}"
}
flag() { flag_in "$2" "$(held "$1")"; } # PART NAME: from wherever its manifest is now
held() { # PART: its manifest; a restore holds it for a while
  if [ -f "$HOLD/manifests/$1.yaml" ]; then printf '%s\n' "$HOLD/manifests/$1.yaml"; else printf '%s\n' "$KUBERNETES/manifests/$1.yaml"; fi
}
field() { # NAME FILE: a number or a word
  local text
  text=$(<"$2") && [[ $text =~ \"$1\"\ *:\ *\"?([A-Za-z0-9._:-]*) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}
number() { case ${1:-} in '' | *[!0-9]*) return 1 ;; esac; }
# ours DIR: a backup that this script made, and no link to somewhere else
ours() {
  [[ ${1##*/} =~ $NAMED ]] && [ ! -L "$1" ] && [ -d "$1" ] && [ -f "$1/manifest.json" ] && [ ! -L "$1/manifest.json" ] &&
    [ "$(field made_by "$1/manifest.json")" = shipway-backup ] && [ "$(field cluster "$1/manifest.json")" = "$CLUSTER" ]
}
all_ours() { # names, newest first
  local dir
  for dir in "$ROOT"/*; do ! ours "$dir" || printf '%s\n' "${dir##*/}"; done | sort -r
}
# A marker counts while the manifest is the one that was verified.
verified() {
  [ -f "$1/verified" ] && [ "$(field manifest "$1/verified")" = "$(sha256sum <"$1/manifest.json" | cut -d' ' -f1)" ]
}

database() { stat -c %s -- "$(flag etcd data-dir)/member/snap/db" 2>/dev/null || echo 0; }
image() { sed -n 's/^ *image: *"\{0,1\}\([^" ]*\)"\{0,1\} *$/\1/p' "${1:-$KUBERNETES}/manifests/etcd.yaml" 2>/dev/null | head -n 1; }
# The nearest folder that is there: before the first backup there is none of ours.
free() {
  local dir=$ROOT
  while [ ! -d "$dir" ]; do dir=${dir%/*}; [ -n "$dir" ] || dir=/; done
  df --output=avail -B1 -- "$dir" | tail -n 1 | tr -d ' '
}
begin() { # one at a time: until this script ends
  install -d -m 700 -- "$ROOT" "$PROGRAMS"
  exec 9>"$ROOT/.lock"
  flock -w 5 9 || fail busy "another backup of this host is under way"
}
at_work() { [ -e "$ROOT/.lock" ] && ! flock -n -s "$ROOT/.lock" true; }

look() {
  local name dir
  printf 'manifest=%s\n' "$([ -f "$KUBERNETES/manifests/etcd.yaml" ] && echo yes)"
  printf 'image=%s\n' "$(plain "$(image)")"
  printf 'database=%s\nfree=%s\nroom=%s\n' "$(database)" "$(free)" "$ROOM"
  printf 'busy=%s\nnow=%s\n' "$(at_work && echo yes)" "$(date -u +%Y%m%dT%H%M%SZ)"
  printf 'restoring=%s\nrestored=%s\n' "$(cat "$HOLD/from" 2>/dev/null)" "$(cat "$ROOT/.restored" 2>/dev/null)"
  printf 'held=%s\nid=%s\nlead=%s\n' "$([ -f "$HOLD/manifests/etcd.yaml" ] && echo yes)" "$(cat "$HOLD/id" 2>/dev/null)" "$(cat "$HOLD/lead" 2>/dev/null)"
  printf 'aside=%s\nchanged=%s\n' "$(cat "$ROOT/.aside" 2>/dev/null)" "$([ -f "$HOLD/restored" ] && echo yes)"
  printf 'ctr=%s\n' "$(command -v ctr >/dev/null && echo yes)"
  all_ours | while read -r name; do
    dir=$ROOT/$name
    printf 'backup=%s %s %s %s %s %s %s %s\n' "$name" "$(verified "$dir" && echo verified || echo unverified)" \
      "$(field revision "$dir/manifest.json")" "$(field keys "$dir/manifest.json")" \
      "$(field etcd "$dir/manifest.json")" "$(field bytes "$dir/manifest.json")" \
      "$(sha256sum <"$dir/manifest.json" | cut -d' ' -f1)" "$([ -n "$(sealed_by "$dir")" ] && echo key || echo open)"
  done
}

# Take etcd's own programs out of the image that the static pod names: they are of its version, and stay where a
# restore finds them on the day on which no etcd runs.
bring_tools() {
  local name=$1 from mount=$ROOT/.image tool dir
  TOOLS=$PROGRAMS/$(printf '%s' "$name" | tr -c 'A-Za-z0-9._-' '_')
  if [ ! -f "$TOOLS/complete" ]; then
    command -v ctr >/dev/null || fail no-tools "no ctr on this host, which comes with containerd"
    drop_image
    rm -rf -- "$TOOLS.part"
    mkdir -p -- "$mount" "$TOOLS.part"
    from=$(ctr -n k8s.io images mount "$name" "$mount" 2>&1) || fail no-tools "the image $name cannot be opened: $from"
    for tool in etcd etcdctl etcdutl; do
      for dir in usr/local/bin usr/bin bin; do
        if [ -f "$mount/$dir/$tool" ] && [ ! -L "$mount/$dir/$tool" ]; then
          cp -- "$mount/$dir/$tool" "$TOOLS.part/" && chmod 700 "$TOOLS.part/$tool" || fail no-room "$tool cannot be copied"
          break
        fi
      done
    done
    drop_image
    for tool in etcd etcdctl etcdutl; do # what the image lacks may be on the host, in the same version
      [ -f "$TOOLS.part/$tool" ] || ! dir=$(command -v "$tool") || cp -L -- "$dir" "$TOOLS.part/"
    done
    touch "$TOOLS.part/complete"
    rm -rf -- "$TOOLS" && mv -T -- "$TOOLS.part" "$TOOLS"
  fi
  [ -x "$TOOLS/etcd" ] && [ -x "$TOOLS/etcdctl" ] || { # looked for again, for it may be put there by then
    rm -f -- "$TOOLS/complete"
    fail no-tools "neither the image $name nor this host has $([ -x "$TOOLS/etcd" ] && echo etcdctl || echo etcd)"
  }
  # From 3.5 on a snapshot is etcdutl's, and from 3.6 on only etcdutl can restore one.
  if [ -x "$TOOLS/etcdutl" ]; then UTL=$TOOLS/etcdutl; else UTL=$TOOLS/etcdctl; fi
  # No `grep -q`: it would end before the help does, and the pipe would count as broken.
  [[ $("$UTL" snapshot restore --help 2>&1) == *--data-dir* ]] || {
    rm -f -- "$TOOLS/complete"
    fail no-tools "no etcdutl in the image $name or on this host, and its etcdctl restores no snapshot any more"
  }
}
reach() { # how this host's own member is asked
  URL=$(flag etcd listen-client-urls | tr ',' '\n' | grep -e '//127\.0\.0\.1:' -e '//localhost:' | head -n 1)
  [ -n "$URL" ] || URL=$(flag etcd listen-client-urls | tr ',' '\n' | head -n 1)
  CERT=$KUBERNETES/pki/etcd/healthcheck-client
  [ -f "$CERT.crt" ] || CERT=$KUBERNETES/pki/apiserver-etcd-client
}
drop_image() {
  [ -d "$ROOT/.image" ] || return 0
  ctr -n k8s.io images unmount --rm "$ROOT/.image" >/dev/null 2>&1 || umount "$ROOT/.image" >/dev/null 2>&1
  rmdir -- "$ROOT/.image" 2>/dev/null
}

ask_api() { # SECONDS WORDS...: kubectl by the administrator's right, with a cache that is not root's own
  kubectl "--kubeconfig=$KUBERNETES/admin.conf" "--cache-dir=${ROOT%/*}/kubectl" "--request-timeout=$1s" "${@:2}"
}
live() { # etcdctl on this host's own member
  "$TOOLS/etcdctl" --endpoints="$URL" --cacert="$(flag etcd trusted-ca-file)" --cert="$CERT.crt" --key="$CERT.key" \
    --command-timeout=600s --dial-timeout=10s "$@"
}
# Kinds with their number of keys; a group's name has a dot, and its resource follows.
count_kinds() {
  sed -n "s|^$PREFIX/||p" | awk -F/ '{ kind = ($1 ~ /[.]/ || $1 == "services") ? $1 "/" $2 : $1; n[kind]++ }
    END { for (kind in n) print kind, n[kind] }' | sort
}
digest() { sha256sum | cut -d' ' -f1; }

sweep() { # what a killed run left behind: only names that this script makes
  systemctl stop "$UNIT" >/dev/null 2>&1
  rm -rf -- "$ROOT"/.part-* "$ROOT"/.verify-*
  drop_image
}
leave() {
  [ -z "$part" ] || rm -rf -- "$part"
}

write_canary() { # NAME; what is read back in the restored copy: written by the API where that answers
  local said
  CANARY=$PREFIX/namespaces/default MARKS=()
  said=$(ask_api 20 -n kube-system create configmap shipway-backup-canary "--from-literal=backup=$1" --dry-run=client -o yaml 2>&1 |
    ask_api 20 -n kube-system apply -f - 2>&1) && CANARY=$PREFIX/configmaps/kube-system/shipway-backup-canary ||
    MARKS+=("no canary of this backup: the API did not take it")
}

take() {
  local now size have status rev previous
  [ -f "$KUBERNETES/manifests/etcd.yaml" ] || fail no-etcd "no $KUBERNETES/manifests/etcd.yaml: kubeadm runs no etcd here"
  begin
  [ ! -f "$HOLD/from" ] || fail other "the restore of $(cat "$HOLD/from") was broken off: end that one first"
  sweep
  trap leave EXIT
  bring_tools "$(image)"
  size=$(database) have=$(free)
  [ "$have" -ge $((2 * size + ROOM)) ] ||
    fail no-room "$((have / 1048576)) MiB free in $ROOT, and twice the database's $((size / 1048576)) MiB and $((ROOM / 1048576)) more are needed"
  reach
  PREFIX=$(flag kube-apiserver etcd-prefix)
  PREFIX=${PREFIX:-/registry}
  now=$(date -u +%Y%m%dT%H%M%SZ)
  while [ -e "$ROOT/$now" ]; do sleep 1; now=$(date -u +%Y%m%dT%H%M%SZ); done
  part=$ROOT/.part-$now
  install -d -m 700 -- "$part"
  status=$part/.status
  live endpoint status -w json >"$status" 2>"$part/.said" ||
    fail no-etcd "etcd on this host does not answer on $URL: $(tail -n 1 "$part/.said")"
  write_canary "$now"
  case $(field leader "$status") in '' | 0) MARKS+=("etcd had no leader") ;; esac
  case $(live alarm list 2>/dev/null) in *NOSPACE*) MARKS+=("etcd had the alarm NOSPACE") ;; esac
  live get "$CANARY" --consistency=s --print-value-only 2>/dev/null | digest >"$part/.canary"

  say "taking a snapshot of $((size / 1048576)) MiB from $URL"
  live snapshot save "$part/snapshot.db" >"$part/.said" 2>&1 || fail no-snapshot "etcd gave no snapshot: $(tail -n 3 "$part/.said")"
  [ -s "$part/snapshot.db" ] || fail no-snapshot "etcd gave an empty snapshot"
  chmod 600 "$part/snapshot.db"
  "$UTL" snapshot status "$part/snapshot.db" -w json >"$part/.snapshot" 2>"$part/.said" ||
    fail damaged "the snapshot's status cannot be read: $(tail -n 1 "$part/.said")"
  rev=$(field revision "$part/.snapshot")
  number "$rev" || fail damaged "the snapshot names no revision"
  # The keys that were there at the snapshot's own revision: exact, unless that was compacted meanwhile.
  if live get "$PREFIX" --prefix --keys-only --consistency=s --rev="$rev" 2>"$part/.said" | count_kinds >"$part/counts"; then
    COUNTED=revision
  else
    live get "$PREFIX" --prefix --keys-only --consistency=s 2>"$part/.said" | count_kinds >"$part/counts" ||
      fail no-snapshot "the keys cannot be counted: $(tail -n 1 "$part/.said")"
    COUNTED=now
  fi
  live member list >"$part/members" 2>/dev/null
  bring_files "$part"
  write_manifest "$now" "$status"
  rm -f -- "$part"/.[a-z]*
  sync -f -- "$part" 2>/dev/null || sync
  previous=$(newest_verified)
  mv -T -- "$part" "$ROOT/$now" && part=''
  sync -f -- "$ROOT" 2>/dev/null || sync
  say "taken: $ROOT/$now, revision $rev"
  (not_back "$previous" "$now" && verify "$ROOT/$now")
  status=$?
  keep # also after one that is not as it should be: a host that fails every night must not fill its disk
  exit "$status"
}

# not_back PREVIOUS NAME: what etcd counts never goes down, but where its data were set back. A restored cluster has
# another id and is compared with nothing.
not_back() {
  local rev before
  [ -n "$1" ] && [ "$(field cluster_id "$ROOT/$1/manifest.json")" = "$(field cluster_id "$ROOT/$2/manifest.json")" ] || return 0
  rev=$(field revision "$ROOT/$2/manifest.json") before=$(field revision "$ROOT/$1/manifest.json")
  [ "$rev" -ge "$before" ] || fail went-back "revision $rev is below $before, that of the backup $1 before it"
}

bring_files() { # what a snapshot is worth nothing without
  local to=$1 encryption pod
  for pod in etcd kube-apiserver; do wait_for 180 test -f "$KUBERNETES/manifests/$pod.yaml"; done
  {
    find "$KUBERNETES/pki" "$KUBERNETES/manifests" -type f 2>/dev/null
    find "$KUBERNETES" -maxdepth 1 -type f -name '*.conf' 2>/dev/null
    for file in "$KUBELET/config.yaml" "$KUBELET/kubeadm-flags.env"; do [ ! -f "$file" ] || printf '%s\n' "$file"; done
  } | sort -u | copy_files "$to" || exit 1
  # A static pod that is started anew has no manifest for a while, and without the API server's nobody can tell which
  # key Secrets need. So the copy is asked, which is what a restore has.
  for pod in etcd kube-apiserver; do
    [ -s "$to/files$KUBERNETES/manifests/$pod.yaml" ] ||
      fail restarting "no manifest of $pod in $KUBERNETES/manifests: it is just started anew, or does not run"
  done
  encryption=$(sealed_by "$to")
  if [ -n "$encryption" ]; then # without its key the snapshot's Secrets could be read by nobody: that is no backup
    printf '%s\n' "$encryption" | copy_files "$to" || exit 1
    [ -s "$to/files$encryption" ] ||
      fail no-key "Secrets are encrypted at rest, and their key is not in $encryption, where the API server is told to read it"
    say "the key of encryption at rest goes with it: whoever has the backup can read its Secrets"
  fi
  ask_api 20 -n kube-system get configmap kubeadm-config -o yaml >"$to/kubeadm-config.yaml" 2>/dev/null || rm -f -- "$to/kubeadm-config.yaml"
  find "$to/files" -type d -exec chmod 700 {} + && find "$to/files" -type f -exec chmod 600 {} +
}

copy_files() { # DIR; their names on standard input; one that goes away meanwhile is not copied
  local file
  while IFS= read -r file; do
    case $file in *[!A-Za-z0-9._/@:+-]*) say "left out, for its name: a file in ${file%/*}" && continue ;; esac
    mkdir -p -- "$1/files${file%/*}" && cp -p -- "$file" "$1/files$file" || [ ! -e "$file" ] || fail no-room "$file cannot be copied"
  done
}

write_manifest() { # NAME STATUS
  local mark sep='' file of=$part/files$KUBERNETES
  {
    printf '{\n  "made_by": "shipway-backup",\n  "format": 1,\n  "cluster": "%s",\n  "host": "%s",\n' "$CLUSTER" "$(plain "$(uname -n)")"
    printf '  "taken": "%s",\n  "etcd": "%s",\n  "image": "%s",\n' "$1" "$(field version "$2")" "$(plain "$(image "$of")")"
    printf '  "member": "%s",\n  "cluster_id": "%s",\n' "$(plain "$(flag_in name "$of/manifests/etcd.yaml")")" "$(field cluster_id "$2")"
    printf '  "peer_url": "%s",\n' "$(plain "$(flag_in initial-advertise-peer-urls "$of/manifests/etcd.yaml")")"
    printf '  "hash": %s,\n  "revision": %s,\n' "$(field hash "$part/.snapshot")" "$(field revision "$part/.snapshot")"
    printf '  "keys": %s,\n  "bytes": %s,\n' "$(awk '{ n += $2 } END { print n + 0 }' "$part/counts")" "$(stat -c %s "$part/snapshot.db")"
    printf '  "counted_at": "%s",\n  "prefix": "%s",\n' "$COUNTED" "$(plain "$PREFIX")"
    printf '  "encryption": "%s",\n' "$(plain "$(sealed_by "$part")")"
    printf '  "canary": "%s",\n  "canary_sha256": "%s",\n' "$(plain "$CANARY")" "$(cat "$part/.canary")"
    printf '  "kubeadm": "%s",\n  "kubelet": "%s",\n' "$(plain "$(kubeadm version -o short 2>/dev/null)")" "$(plain "$(kubelet --version 2>/dev/null)")"
    printf '  "containerd": "%s",\n' "$(plain "$(containerd --version 2>/dev/null)")"
    printf '  "system": "%s",\n' "$(plain "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"')")"
    printf '  "marks": ['
    for mark in ${MARKS[@]+"${MARKS[@]}"}; do printf '%s"%s"' "$sep" "$(plain "$mark")" && sep=', '; done
    printf '],\n  "files": {\n'
    (cd "$part" && find . -type f ! -path './.*' ! -path ./manifest.json -printf '%P\n' | sort | while IFS= read -r file; do sha256sum -- "$file"; done) |
      sed 's/^\([0-9a-f]\{64\}\)  \(.*\)$/    "\2": "\1",/; $s/,$//'
    printf '  }\n}\n'
  } >"$part/manifest.json" || fail no-room "the manifest cannot be written"
}

newest_verified() {
  local name
  all_ours | while read -r name; do verified "$ROOT/$name" && printf '%s\n' "$name" && break; done
}

# check DIR: every file of a backup is the one that was taken
check() {
  local sums
  sums=$(sed -n 's/^    "\(.*\)": "\([0-9a-f]\{64\}\)",\{0,1\}$/\2  \1/p' "$1/manifest.json")
  [ -n "$sums" ] || fail damaged "the manifest of $1 names no files"
  sums=$(cd "$1" && printf '%s\n' "$sums" | sha256sum --check --quiet 2>&1) ||
    fail damaged "$1 is not as it was taken: $(printf '%s' "$sums" | head -n 3)"
}

verify() { # DIR
  local dir=$1 status=$ROOT/.verify-status started=$SECONDS said keys hash
  ours "$dir" || fail damaged "$dir is no backup of cluster $CLUSTER that shipway-backup made"
  check "$dir"
  [ -n "${UTL:-}" ] || bring_tools "$(field_of image "$dir")"
  "$UTL" snapshot status "$dir/snapshot.db" -w json >"$status" 2>&1 ||
    fail damaged "the snapshot's status cannot be read: $(tail -n 1 "$status")"
  hash=$(field hash "$status")
  [ "$hash" = "$(field hash "$dir/manifest.json")" ] || fail damaged "the snapshot's hash is $hash, and not the one of its manifest"
  say "restoring ${dir##*/} into an etcd of its own, which is thrown away"
  systemctl stop "$UNIT" >/dev/null 2>&1
  # A network of its own: what it serves are all Secrets of the cluster, and nobody else on the host can ask it.
  systemd-run --quiet --wait --pipe --collect --unit="$UNIT" -p PrivateNetwork=yes -p PrivateTmp=yes -p NoNewPrivileges=yes \
    -p Nice=19 -p IOSchedulingClass=idle -p CPUWeight=10 -p MemoryMax=25% -p OOMScoreAdjust=900 -p RuntimeMaxSec=1800 \
    -p UMask=0077 --setenv=LC_ALL=C -- /bin/bash "$0" restored "$dir" "$TOOLS" "$UTL" >"$ROOT/.verify-said" 2>&1 9>&-
  said=$(cat "$ROOT/.verify-said")
  rm -rf -- "$ROOT/.verify-${dir##*/}" "$status" "$ROOT/.verify-said"
  case $said in
    *'shipway-backup[restored]: '*) keys=${said##*'shipway-backup[restored]: '} ;;
    *'shipway-backup['*) printf '%s\n' "$said" | grep -F 'shipway-backup[' | tail -n 1 && exit 1 ;;
    *) fail not-restored "the throw-away etcd was ended from outside: $(printf '%s' "$said" | tail -n 2)" ;;
  esac
  printf '{"at": "%s", "restored": "%s", "seconds": %s, "manifest": "%s"}\n' "$(date -u +%Y%m%dT%H%M%SZ)" \
    "$(plain "${keys%%$'\n'*}")" "$((SECONDS - started))" "$(sha256sum <"$dir/manifest.json" | cut -d' ' -f1)" >"$dir/.verified"
  sync -f -- "$dir" 2>/dev/null || sync
  mv -fT -- "$dir/.verified" "$dir/verified"
  say "verified: $dir, ${keys%%$'\n'*}"
}
# Text with other letters than `field` takes.
field_of() { sed -n "s/^  \"$1\": \"\(.*\)\",\$/\1/p" "$2/manifest.json" | head -n 1; }

# The part of `verify` that runs in the unit with limits and a network of its own.
restored() { # DIR TOOLS UTL
  local dir=$1 tools=$2 utl=$3 waited=0 url=http://127.0.0.1:2379 peer=http://127.0.0.1:2380 wrong least
  [ "$(readlink "$PROC/self/ns/net")" != "$(readlink "$PROC/1/ns/net")" ] ||
    fail no-isolation "systemd gave the throw-away etcd no network of its own"
  tmp=$ROOT/.verify-${1##*/} pid='' # not local: the trap runs when this function is over
  trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null; rm -rf -- "$tmp"' EXIT
  rm -rf -- "$tmp"
  install -d -m 700 -- "$tmp"
  "$utl" snapshot restore "$dir/snapshot.db" --data-dir "$tmp/data" --name verify --initial-cluster "verify=$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster-token "verify-${dir##*/}" >"$tmp/said" 2>&1 ||
    fail damaged "etcd does not restore the snapshot: $(grep -v '^$' "$tmp/said" | tail -n 2)"
  "$tools/etcd" --data-dir "$tmp/data" --name verify --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "verify=$peer" >"$tmp/log" 2>&1 &
  pid=$!
  until "$tools/etcdctl" --endpoints="$url" --dial-timeout=2s --command-timeout=5s endpoint health >/dev/null 2>&1; do
    kill -0 "$pid" 2>/dev/null || fail not-restored "the throw-away etcd ended: $(tail -n 1 "$tmp/log")"
    waited=$((waited + 1))
    [ "$waited" -lt "$PATIENCE" ] || fail not-restored "the throw-away etcd did not answer: $(tail -n 1 "$tmp/log")"
    sleep 0.2
  done
  PREFIX=$(field_of prefix "$dir")
  "$tools/etcdctl" --endpoints="$url" --command-timeout=600s get "$PREFIX" --prefix --keys-only 2>"$tmp/said" |
    count_kinds >"$tmp/counts" || fail not-restored "the restored keys cannot be counted: $(tail -n 1 "$tmp/said")"
  least=100
  [ "$(field counted_at "$dir/manifest.json")" = revision ] || least=99
  wrong=$(awk -v least="$least" 'NR == FNR { live[$1] = $2; next } { got[$1] = $2 }
    END { for (kind in live) if (got[kind] * 100 < live[kind] * least) print kind ": " got[kind] + 0 " of " live[kind] }' \
    "$dir/counts" "$tmp/counts")
  [ -s "$dir/counts" ] || wrong='no kinds were counted when it was taken'
  [ -z "$wrong" ] || fail keys-missing "of these kinds keys are missing in the restored copy: $(printf '%s' "$wrong" | head -n 5 | tr '\n' ';')"
  [ -n "$(sealed_by "$dir")" ] || [ "$(count_sealed "$tools" "$url")" -eq 0 ] ||
    fail no-key "Secrets in it are encrypted, and the API server's manifest in it names no key"
  "$tools/etcdctl" --endpoints="$url" get "$(field_of canary "$dir")" --print-value-only 2>/dev/null | digest >"$tmp/canary"
  [ "$(cat "$tmp/canary")" = "$(field canary_sha256 "$dir/manifest.json")" ] ||
    fail canary "$(field_of canary "$dir") is not in the restored copy as it was in the cluster"
  awk '{ n += $2 } END { printf "shipway-backup[restored]: %d keys of %d kinds\n", n, NR }' "$tmp/counts"
}

count_sealed() { # TOOLS URL: Secrets that begin with `k8s:en`, in Base64; no letter of one is kept or said
  "$1/etcdctl" --endpoints="$2" --command-timeout=600s get "$PREFIX/secrets/" --prefix -w json 2>/dev/null |
    grep -o '"value":"azhzOmVu' | wc -l
}

# Remove what is too many or too old, never the newest verified one, and of what was never verified only what is older
# than a verified one: whatever goes is ours by its manifest.
keep() {
  local newest name dir count=0 spare=0 oldest
  newest=$(newest_verified)
  oldest=$(date -u -d "$KEEP_DAYS days ago" +%Y%m%dT%H%M%SZ)
  for name in $(all_ours); do
    dir=$ROOT/$name
    if verified "$dir"; then
      count=$((count + 1))
      [ "$name" != "$newest" ] || continue
      [ "$count" -gt "$KEEP" ] || [[ $name < $oldest ]] || continue
    elif [[ -z $newest || $name > $newest ]]; then
      spare=$((spare + 1))
      [ "$spare" -gt 3 ] || continue
    fi
    ours "$dir" && rm -rf -- "$dir" && say "removed: $dir"
  done
  for dir in "$PROGRAMS"/*; do # programs that no backup needs any more, and that are not those in use
    [ -d "$dir" ] && [ "$dir" != "$TOOLS" ] || continue
    for name in $(all_ours); do
      [ "$PROGRAMS/$(field_of image "$ROOT/$name" | tr -c 'A-Za-z0-9._\n-' '_')" != "$dir" ] || continue 2
    done
    [ ! -f "$dir/complete" ] || rm -rf -- "$dir"
  done
}

# --- restore: the data of a control plane, from a verified backup ------------------------------------------------------
# Each piece looks first and ends in one rename, so a run that was killed anywhere is ended by the next one. While it is
# under way $HOLD has the manifests that were taken out, `from` (the backup), `aside` (what the old data are called) and,
# once the restored data are in their place, `restored`; where several hosts take part also `id`, which is the same on
# all of them, and `lead`, the host that gets the data.
PARTS='kube-controller-manager kube-scheduler kube-apiserver etcd' # in the order in which they are stopped
note() { # NAME WORDS: a file in $HOLD, whole or not there
  printf '%s\n' "$2" >"$HOLD/.$1" && sync -f -- "$HOLD/.$1" && mv -fT -- "$HOLD/.$1" "$HOLD/$1" || fail no-room "$HOLD cannot be written"
}
# place FROM TO [MODE]: a copy that is whole before it has its name; the kubelet passes over names with a dot
place() {
  cp -p -- "$1" "${2%/*}/.shipway-${2##*/}" && { [ -z "${3:-}" ] || chmod "$3" -- "${2%/*}/.shipway-${2##*/}"; } && sync -f -- "${2%/*}/.shipway-${2##*/}" && mv -fT -- "${2%/*}/.shipway-${2##*/}" "$2" ||
    fail no-room "$2 cannot be written"
}
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT
at_rest() { # no API server answers, and nobody holds the database
  ! answers "$(port)" && { [ ! -e "$DATA/member/snap/db" ] || flock -n "$DATA/member/snap/db" true; }
}
port() {
  local said
  said=$(flag kube-apiserver secure-port)
  printf '%s\n' "${said:-6443}"
}
wait_for() { # SECONDS WORDS...: until a command succeeds; by the clock, since a look may itself take seconds
  local end=$((SECONDS + $1 * WAITS))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
}
put_back() { # PART...
  local part
  for part; do
    [ ! -f "$HOLD/manifests/$part.yaml" ] || { place "$HOLD/manifests/$part.yaml" "$KUBERNETES/manifests/$part.yaml" && rm -f -- "$HOLD/manifests/$part.yaml"; }
  done
}

# sealed_by DIR: the file with the key by which the API server of then encrypted Secrets; nothing where it did not
sealed_by() { flag_in encryption-provider-config "$1/files$KUBERNETES/manifests/kube-apiserver.yaml"; }
# may_read DIR: the API server of this host has every key by which the Secrets of a backup are encrypted
may_read() {
  local named here held key
  named=$(sealed_by "$1")
  [ -n "$named" ] || return 0
  [ -f "$1/files$named" ] || fail no-key "the Secrets in $1 are encrypted, and their key ($named) is not in it"
  here=$(flag kube-apiserver encryption-provider-config)
  [ -n "$here" ] || fail no-key "the Secrets in $1 are encrypted, and the API server of this host is told of no key"
  [ -f "$here" ] || fail no-key "the Secrets in $1 are encrypted, and $here is not there; the backup has it in $1/files$named"
  held=$(<"$here")
  while IFS= read -r key; do # in this shell alone: no key in a process list
    [[ $held == *"$key"* ]] || fail no-key "a key by which Secrets in $1 are encrypted is not in $here; the backup has it in $1/files$named"
  done < <(sed -n 's/^.*secret: *\([A-Za-z0-9+\/=]\{16,\}\).*/\1/p' "$1/files$named")
}
# begin_hold DIR ID LEAD: what is under way is written down before anything is changed; another one is ended first
begin_hold() {
  [ ! -f "$HOLD/from" ] || [ "$(cat "$HOLD/from") $(cat "$HOLD/id" 2>/dev/null)" = "$1 $2" ] ||
    fail other "the restore of $(cat "$HOLD/from") was broken off: end that one first"
  install -d -m 700 -- "$HOLD/manifests"
  [ ! -f "$HOLD/from" ] || return 0
  [ -f "$HOLD/aside" ] || note aside "member.before-$(date -u +%Y%m%dT%H%M%SZ)"
  [ -z "$2" ] || { note id "$2" && note lead "$3"; }
  note from "$1"
}
end_hold() { # NAME of the file that says so, WORDS
  printf '%s\n' "$2" >"$ROOT/$1" && sync -f -- "$ROOT/$1" || fail no-room "$ROOT cannot be written"
  rm -rf -- "$HOLD"
}
may_restore() { # DIR
  ours "$1" || fail other "$1 is no backup of cluster $CLUSTER"
  verified "$1" || fail other "$1 was never restored by way of trial, so nobody knows whether it can be"
  check "$1"
}
all_parts() { # the manifests, and where they say that etcd's data are
  local part
  for part in $PARTS; do [ -f "$(held "$part")" ] || fail no-etcd "no manifest of $part"; done
  DATA=$(flag etcd data-dir)
  [ -n "$DATA" ] || fail no-etcd "the manifest of etcd names no data"
}
restore() { # DIR [ID LEAD]
  local dir=$1 part name peer now
  now=$(date -u +%Y%m%dT%H%M%SZ)
  may_restore "$dir"
  may_read "$dir"
  cmp -s "$KUBERNETES/pki/ca.crt" "$dir/files$KUBERNETES/pki/ca.crt" || fail other "$dir is of a cluster with another certificate authority"
  all_parts
  bring_tools "$(field_of image "$dir")"
  name=$(flag etcd name) peer=$(flag etcd initial-advertise-peer-urls)
  [ -n "$name" ] && [ -n "$peer" ] || fail no-etcd "the manifest of etcd names no name or address"
  begin_hold "$dir" "${2:-}" "${3:-}"
  if [ ! -f "$HOLD/restored" ]; then
    stop_all
    bring_data "$dir" "$name" "$peer"
  fi
  say "starting etcd and the control plane again"
  put_back etcd
  reach
  wait_for 240 live endpoint health || fail not-up "etcd does not answer on $URL with the restored data; the old are in $DATA/$(cat "$HOLD/aside")"
  put_back kube-apiserver
  wait_for 240 ask_api 5 get --raw /readyz || fail not-up "the API server does not become ready on the restored data; the old are in $DATA/$(cat "$HOLD/aside")"
  put_back kube-controller-manager kube-scheduler
  for part in $PORTS; do
    wait_for 120 answers "$part" || fail not-up "kube-controller-manager or kube-scheduler does not listen on port $part"
  done
  systemctl restart kubelet
  say "restored: ${dir##*/}; the data of before are in $DATA/$(cat "$HOLD/aside")"
  end_hold .restored "${dir##*/} $now${2:+ $2}"
}

# Of several control planes all are stopped before the data of one are changed: no member goes on with the old ones.
stop() { # DIR ID LEAD
  all_parts
  begin_hold "$1" "$2" "$3"
  stop_all
  say "stopped: the control plane of this host"
}
start() { # what `stop` took out goes back, where no data were changed
  local aside
  [ -f "$HOLD/from" ] || return 0
  all_parts
  aside=$DATA/$(cat "$HOLD/aside")
  [ ! -f "$HOLD/restored" ] && [ ! -d "$aside" ] ||
    fail not-stopped "the data of this host were changed by the restore of $(cat "$HOLD/from"): end that one"
  put_back etcd kube-apiserver kube-controller-manager kube-scheduler
  rm -rf -- "$HOLD"
  say "started: the control plane of this host, as it was"
}
# put_aside DIR ID: the data of a control plane whose cluster was restored on another host go out of etcd's folder, which
# kubeadm reset empties; the mark then lets the join of a control plane take the host.
put_aside() {
  local away dir name
  [ -f "$HOLD/from" ] || fail other "no restore of several control planes is under way on this host"
  begin_hold "$1" "$2" ''
  all_parts
  wait_for 180 at_rest || fail not-stopped "the API server or etcd runs again on this host: end what answers on port $(port), then run it again"
  systemctl stop kubelet # it would register its node again, which the others must forget
  away=${DATA%/}-before-$(cut -d- -f2- <"$HOLD/aside")
  install -d -m 700 -- "$away"
  for dir in "$DATA/member" "$DATA"/member.before-*; do
    [ -d "$dir" ] || continue
    name=${dir##*/}
    if [ "$(stat -c %d -- "$dir")" = "$(stat -c %d -- "$away")" ]; then
      [ ! -e "$away/$name" ] || fail not-stopped "$dir is there again, and $away/$name too: an etcd was started here since"
      mv -T -- "$dir" "$away/$name" || fail no-room "$dir cannot be put aside"
    else # etcd's folder is a disk of its own: the old data go once the copy is whole
      if [ ! -e "$away/$name" ]; then
        rm -rf -- "$away/.part"
        cp -a -- "$dir" "$away/.part" && sync -f -- "$away/.part" && mv -T -- "$away/.part" "$away/$name" || fail no-room "$dir cannot be put aside"
      fi
      rm -rf -- "$dir"
    fi
  done
  cp -a -- "$HOLD/manifests" "$away/"
  sync -f -- "$away" || sync
  printf '%s\n' "$CLUSTER" >"$JOINING.new" && sync -f -- "$JOINING.new" && mv -fT -- "$JOINING.new" "$JOINING" || fail no-room "$JOINING cannot be written"
  say "put aside: the data of before are in $away"
  end_hold .aside "$2"
}

# adopt DIR ID LEAD NAME PEER: a host that holds no control plane gets the data, then the keys that control planes
# share, and last the mark by which `kubeadm init` of a bootstrap goes on from there. Nothing of the host's own is
# written over.
adopt() {
  local dir=$1 file files now
  now=$(date -u +%Y%m%dT%H%M%SZ)
  may_restore "$dir"
  [ ! -f "$KUBERNETES/manifests/etcd.yaml" ] || fail other "this host runs a control plane: its files are never written over"
  DATA=$(flag_in data-dir "$dir/files$KUBERNETES/manifests/etcd.yaml")
  [ -n "$DATA" ] || fail other "$dir does not say where etcd's data belong"
  [ -f "$HOLD/from" ] || [ ! -e "$DATA/member" ] || fail other "$DATA/member is there, and no restore of ours put it there"
  files="$(printf "$KUBERNETES/pki/%s\n" ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key etcd/ca.crt etcd/ca.key sa.key sa.pub) $(sealed_by "$dir")"
  for file in $files; do
    [ -s "$dir/files$file" ] || fail other "$dir has no $file, and without it no control plane is made anew"
    [ ! -e "$file" ] || cmp -s "$file" "$dir/files$file" || fail other "$file of this host is another one than in $dir, and is never written over"
  done
  bring_tools "$(field_of image "$dir")"
  begin_hold "$dir" "$2" "$3"
  install -d -m 700 -- "$DATA"
  [ -f "$HOLD/restored" ] || bring_data "$dir" "$4" "$5"
  for file in $files; do
    [ ! -e "$file" ] || continue
    (umask 022 && mkdir -p -- "${file%/*}") # as kubeadm makes them
    case $file in *.crt | *.pub) place "$dir/files$file" "$file" 644 ;; *) place "$dir/files$file" "$file" 600 ;; esac
  done
  printf '%s\n' "$CLUSTER" >"$STARTED.new" && sync -f -- "$STARTED.new" && mv -fT -- "$STARTED.new" "$STARTED" || fail no-room "$STARTED cannot be written"
  say "adopted: ${dir##*/}; kubeadm init goes on from here"
  end_hold .restored "${dir##*/} $now $2"
}

stop_all() {
  local part
  say "stopping the control plane"
  for part in $PARTS; do
    [ ! -f "$KUBERNETES/manifests/$part.yaml" ] ||
      { place "$KUBERNETES/manifests/$part.yaml" "$HOLD/manifests/$part.yaml" && rm -f -- "$KUBERNETES/manifests/$part.yaml"; }
  done
  wait_for 180 at_rest && return
  # An earlier run may have taken the data out already: etcd would begin an empty cluster without them.
  [ -d "$DATA/member" ] && [ ! -d "$DATA/$(cat "$HOLD/aside")" ] ||
    fail not-stopped "the API server or etcd did not stop within 180 s, and a restore was broken off while the data changed: they stay stopped; end what still answers on port $(port), then run it again"
  put_back etcd kube-apiserver kube-controller-manager kube-scheduler
  rm -rf -- "$HOLD"
  fail not-stopped "the API server or etcd did not stop within 180 s; their manifests are back and nothing else was changed"
}

bring_data() { # DIR NAME PEER
  local said bump=() fresh=$DATA/.shipway-restored aside
  aside=$DATA/$(cat "$HOLD/aside")
  case $("$UTL" snapshot restore --help 2>&1) in *--bump-revision*) bump=(--bump-revision 1000000000 --mark-compacted) ;; esac
  # Between the two renames there is no `member`: then what is fresh is whole already.
  if [ -d "$DATA/member" ] || [ ! -d "$fresh/member" ]; then
    if [ -d "$aside" ] && [ -d "$DATA/member" ]; then # killed behind the second rename
      rmdir -- "$fresh" 2>/dev/null
      note restored "$(date -u +%Y%m%dT%H%M%SZ)"
      return
    fi
    rm -rf -- "$fresh"
    "$UTL" snapshot restore "$1/snapshot.db" --data-dir "$fresh" --name "$2" --initial-cluster "$2=$3" \
      --initial-advertise-peer-urls "$3" --initial-cluster-token "shipway-$(cat "$HOLD/aside")" ${bump[@]+"${bump[@]}"} \
      >"$HOLD/.said" 2>&1 || {
      said=$(tail -n 2 "$HOLD/.said")
      rm -rf -- "$fresh"
      [ -d "$DATA/member" ] || [ ! -d "$aside" ] || mv -T -- "$aside" "$DATA/member"
      # Without its data etcd would begin an empty cluster, so then it stays stopped.
      [ -d "$DATA/member" ] || [ ! -f "$(held etcd)" ] || fail damaged "etcd does not restore the snapshot, and there are no data: it stays stopped: $said"
      put_back etcd kube-apiserver kube-controller-manager kube-scheduler
      rm -rf -- "$HOLD"
      fail damaged "etcd does not restore the snapshot, so nothing was changed, and what was stopped on this host is started: $said"
    }
    sync -f -- "$fresh" || sync
    [ ! -d "$DATA/member" ] || mv -T -- "$DATA/member" "$aside"
  fi
  mv -T -- "$fresh/member" "$DATA/member"
  rmdir -- "$fresh" 2>/dev/null
  sync -f -- "$DATA" || sync
  note restored "$(date -u +%Y%m%dT%H%M%SZ)"
}

case ${1:-} in
  look) look ;;
  restore)
    begin
    restore "${@:2}"
    ;;
  stop | start | adopt)
    begin
    "$@"
    ;;
  aside)
    begin
    put_aside "$2" "$3"
    ;;
  take) take ;;
  restored) restored "$2" "$3" "$4" ;;
  verify)
    begin
    sweep
    verify "$2"
    ;;
  *) fail usage "take, verify DIR, restore DIR, stop, start, aside, adopt or look" ;;
esac
