"""Programs that do nothing: they write down their words, answer what they are made to, and run what they wrap."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Every program that a step's script may name; a script that names another one meets "not found".
NAMES = (
    *("apt-cache", "apt-get", "apt-helper", "apt-mark", "base64", "bash", "cat", "chmod", "chown", "cloud-init"),
    *("containerd", "cp", "crictl", "ctr", "curl", "date", "dd", "df", "dmesg", "dpkg", "dpkg-query", "env", "find"),
    *(
        "getent",
        "grep",
        "hostnamectl",
        "install",
        "ip",
        "iptables",
        "journalctl",
        "kubeadm",
        "ls",
        "modprobe",
        "mkdir",
        "mv",
    ),
    *("nproc", "nvidia-ctk", "nvidia-smi", "openssl", "rm", "seq", "sh", "sha256sum", "sleep", "ss", "stat", "sudo"),
    *("swapoff", "sysctl", "systemctl", "systemd-run", "timeout", "touch", "uname"),
)
_PROGRAM = r"""#!/bin/sh
PATH=@FOLDER@
name=${0##*/}
printf '%s\0' "$(($# + 1))" "$name" "$@" >> @LOG@
answer() { [ -f "@ANSWERS@/$1" ] || return 1; /bin/cat "@ANSWERS@/$1"; }
case "$name" in
  timeout) shift 3; exec "$@" ;;
  env) while :; do case "$1" in *=*) shift ;; *) break ;; esac; done; exec "$@" ;;
  sudo) shift 2; exec "$@" ;;
  systemd-run)
    while [ "$1" != -- ]; do shift; done
    shift
    "$@"
    status=$?
    echo "Main processes terminated with: code=exited/status=$status" >&2
    exit "$status" ;;
  sh) exec /bin/sh "$@" ;;
  bash) exec /bin/bash "$@" ;;
  dd)
    case "$*" in *of=*) ;; *) exec /bin/dd "$@" ;; esac  # what reads the script itself
    exec /bin/dd "$1" "$2" iflag=fullblock of=/dev/null status=none ;;
  touch) exec /bin/touch "$@" ;;
  stat | sha256sum)
    while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
    [ $# -eq 0 ] || shift
    for path in "$@"; do
      if [ "$name" = stat ]; then printf '644|root:root|1700000000|regular file|%s\n' "$path"
      else printf '%064d  %s\n' 7 "$path"; fi
    done ;;
  dpkg-query)
    answer dpkg-query
    while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
    [ $# -eq 0 ] || shift
    for package in "$@"; do printf '%s|amd64|iU |0.1|%s|%s\n' "$package" "$package" "$package"; done ;;
  dpkg) if [ "$1" = --print-architecture ]; then echo amd64; else answer "$name" || answer other; fi ;;
  apt-cache) shift; for package in "$@"; do printf ' %s | %s | x\n' "$package" "$(answer apt-cache)"; done ;;
  cat) for path in "$@"; do :; done; answer "cat-$(printf %s "$path" | /usr/bin/tr / _)" || answer cat ;;
  systemctl)
    if [ "$1" = show ]; then
      while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
      [ $# -eq 0 ] || shift
      for unit in "$@"; do printf 'Id=%s\nLoadState=loaded\nActiveState=inactive\nSubState=dead\n\n' "$unit"; done
    else answer systemctl; fi ;;
  *) answer "$name-$2" || answer "$name" || answer other ;;
esac
exit 0
"""


@dataclass(frozen=True)
class StandIns:
    """A folder to be the whole PATH, and what its programs wrote down."""

    folder: Path
    log: Path
    answers: Path

    def answer(self, program: str, text: str) -> None:
        """Let a program answer this (`cat-_etc_hosts`: cat of that file; `kubeadm-create`: by its second word)."""
        (self.answers / program).write_bytes(text.encode("utf-8", errors="surrogateescape"))

    def ran(self) -> list[tuple[str, ...]]:
        """Return the words of everything that ran, in order."""
        parts = self.log.read_bytes().decode("utf-8", errors="surrogateescape").split("\0")[:-1]
        found, at = [], 0
        while at < len(parts):
            count = int(parts[at])
            found.append(tuple(parts[at + 1 : at + 1 + count]))
            at += 1 + count
        return found


def stand_ins(folder: Path) -> StandIns:
    """Lay the programs into a folder."""
    made = StandIns(folder / "bin", folder / "log", folder / "answers")
    for one in (made.folder, made.answers):
        one.mkdir(parents=True)
    made.log.touch()
    program = folder / "program"
    text = _PROGRAM
    for name, path in (("@FOLDER@", made.folder), ("@LOG@", made.log), ("@ANSWERS@", made.answers)):
        text = text.replace(name, str(path))
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    for name in NAMES:
        os.link(program, made.folder / name)
    return made
