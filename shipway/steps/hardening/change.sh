#!/bin/bash
set -u
# `alive` and `rested` stand before this: POD_ENDS, of every script that lets a static pod end.
part=$1 pod=$2 folder=$3 away=$4/$1.yaml keep=$5/$1.yaml new=$6 gone=$7 ready=$8 crashes=$9; aways=$4 keeps=$5; shift 9
here=$folder/$part.yaml logs=/var/log/pods confirmed=''
place() { # FROM TO
  cp -p -- "$1" "${2%/*}/.shipway-${2##*/}" && sync -f -- "${2%/*}/.shipway-${2##*/}" && mv -fT -- "${2%/*}/.shipway-${2##*/}" "$2"
}
ended() { # SECONDS
  began=$SECONDS
  while alive; do
    [ $((SECONDS - began)) -lt "$1" ] || return 1
    sleep 0.5
  done
  rested
}
crashed() { # the kubelet numbers what a container has said by its starts
  [ -n "$(find "$logs"/kube-system_"$pod"_*/ -name "[$crashes-9].log" -newer "$keeps/.began" 2>/dev/null | head -n 1)" ]
}
is_ready() { # SECONDS WORDS...
  limit=$1 began=$SECONDS; shift
  until said=$("$@" 2>&1); do
    [ $((SECONDS - began)) -lt "$limit" ] || return 1
    ! crashed || return 1
    sleep 0.5
  done
}
why() { # the last words of the container that ended (a line of CRI: time, stream, F, text), without what may be a key
  local last said
  last=$(find "$logs"/kube-system_"$pod"_*/ -name '*.log' -size +0 -newer "$keeps/.began" -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d' ' -f2-)
  [ -n "$last" ] || return 0
  said=$(grep -aE ' F ([EF][0-9]{4} |[Ee]rror|panic|.*command failed)' "$last" | tail -n 3)
  printf '%s\n' "${said:-$(tail -n 2 -- "$last")}" | cut -c1-400 | sed -E 's#[A-Za-z0-9+/]{40,}=*#[hidden]#g'
}
back() {
  if [ -z "$confirmed" ] && [ -e "$keep" ]; then place "$keep" "$here"; fi
  if [ -e "$away" ] && [ ! -e "$here" ]; then mv -T -- "$away" "$here"; fi
}
undo() { # the old manifest in its place, and its pod ready again
  why
  rm -f -- "$here"
  ended "$gone" || echo "the new $pod still runs after $gone s"
  place "$keep" "$here" || exit 44
  touch -- "$keeps/.began"
  is_ready "$ready" "$@" || { printf '%s\n' "$said" | tail -n 2; exit 44; }
  confirmed=yes
  rm -f -- "$keep" "$keeps/.began"; rmdir -- "$keeps" 2>/dev/null
  echo "$pod is ready again with its old manifest"
  exit 43
}
trap back EXIT
trap 'exit 143' TERM INT HUP
install -d -m 700 -- "$aways" "$keeps"
touch -- "$keeps/.began"
if [ -z "$new" ]; then
  if cmp -s -- "$keep" "$here"; then # nothing was changed, or it was put back
    rm -f -- "$keep" "$keeps/.began"; rmdir -- "$keeps" 2>/dev/null; confirmed=yes; exit 0
  fi
  if is_ready 30 "$@"; then rm -f -- "$keep" "$keeps/.began"; rmdir -- "$keeps" 2>/dev/null; confirmed=yes; exit 0; fi
  undo "$@"
fi
[ -e "$keep" ] || place "$here" "$keep" || exit 1
mv -fT -- "$here" "$away"
if ! ended "$gone"; then
  echo "$pod still runs $gone s after its manifest was moved away"
  mv -T -- "$away" "$here"; rm -f -- "$keep" "$keeps/.began"; rmdir -- "$keeps" "$aways" 2>/dev/null
  exit 41
fi
touch -- "$keeps/.began"
place "$new" "$here" || exit 1
rm -f -- "$away" "$new"; rmdir -- "$aways" 2>/dev/null
is_ready "$ready" "$@" || undo "$@"
confirmed=yes
rm -f -- "$keep" "$keeps/.began"; rmdir -- "$keeps" 2>/dev/null
echo "$pod is ready with its new manifest"
