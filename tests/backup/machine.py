"""A folder that looks like a control plane's host to the script: manifests, certificates, and stand-ins for programs.

The stand-in for etcd keeps its keys in a file; a snapshot is that file with its SHA-256 behind it, as etcd's are, and
the throw-away etcd serves what was restored. So the script's own work is real, and each lie of etcd's can be told.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shipway.backup.script import Settings, render
from shipway.script import PATH

ETCD = """#!/bin/bash
echo $$ > {here}/etcd.pid
for word; do [ "$word" != --data-dir ] || take=yes; [ "${{take:-}}" != yes ] || data=$word; done
[ -f {here}/lie-dead ] && exit 1
exec sleep 30
"""
# $1.. of etcdctl: an endpoint of 127.0.0.1:2379 over http is the throw-away etcd, else it is the cluster's.
ETCDCTL = """#!/bin/bash
here={here}
case "$*" in *http://127.0.0.1:2379*) keys=$here/restored-keys ;; *) keys=$here/keys ;; esac
lie() {{ [ -f "$here/lie-$1" ]; }}
case "$*" in
  *'endpoint status'*) lie silent && echo 'context deadline exceeded' >&2 && exit 1
    lie leaderless && leader='' || leader=',"leader":77'
    printf '[{{"Endpoint":"x","Status":{{"header":{{"cluster_id":%s,"member_id":77,' "$(cat $here/id)"
    printf '"revision":%s}},"version":"3.5.16",' "$(cat $here/revision)"
    printf '"dbSize":20480%s}}}}]\\n' "$leader" ;;
  *'endpoint health'*) lie dead && exit 1; exit 0 ;;
  *'alarm list'*) lie nospace && echo 'memberID:77 alarm:NOSPACE'; exit 0 ;;
  *'member list'*) echo '77, started, cp1' ;;
  *'snapshot save'*)
    lie full && echo 'write: no space left on device' >&2 && exit 1
    cp $keys "${{@: -1}}"; lie loses && sed -i '/pods/d' "${{@: -1}}"
    sha256sum < "${{@: -1}}" | cut -c1-64 >> "${{@: -1}}" ;;
  *'snapshot status'*) file=$(for w; do case $w in */snapshot.db) echo "$w" ;; esac; done)
    printf '{{"hash":%s,"revision":%s,"totalKey":9,"totalSize":20480}}\\n' "$(cksum < "$file" | cut -d' ' -f1)" \
      "$(cat $here/revision)" ;;
  *'snapshot restore --help'*) echo 'Usage: --data-dir --bump-revision' ;;
  *'snapshot restore'*) file=$(for w; do case $w in */snapshot.db) echo "$w" ;; esac; done)
    [ "$(head -n -1 "$file" | sha256sum | cut -c1-64)" = "$(tail -n 1 "$file")" ] ||
      {{ echo 'Error: expected sha256 [1], got [2]' >&2; exit 1; }}
    head -n -1 "$file" > $here/restored-keys; lie canary && sed -i 's/old/other/' $here/restored-keys
    for w; do [ "${{before:-}}" = --data-dir ] && data=$w; before=$w; done
    mkdir -p "$data/member/snap" && cp $here/restored-keys "$data/member/snap/db"; echo "$*" > $here/how; exit 0 ;;
  *--print-value-only*) for w; do case $w in /registry/*) grep "^$w " $keys | cut -d' ' -f2 ;; esac; done; exit 0 ;;
  *'secrets/ --prefix -w json'*) printf '{{"kvs":['
    grep '^/registry/secrets/' $keys | while read -r _ value; do
      printf '{{"key":"x","value":"%s"}},' "$(printf '%s' "$value" | base64)"; done; echo ']}}' ;;
  *--keys-only*--rev*) lie compacted && echo 'mvcc: required revision has been compacted' >&2 && exit 1
    cut -d' ' -f1 $keys ;;
  *--keys-only*) cut -d' ' -f1 $keys ;;
  *) echo "unknown: $*" >&2; exit 2 ;;
esac
"""
CTR = """#!/bin/bash
case "$*" in
  *'images mount'*) mkdir -p "${{@: -1}}/usr/local/bin" && cp {here}/image/* "${{@: -1}}/usr/local/bin/" ;;
  *'images unmount'*) rm -rf "${{@: -1}}/usr" ;;
esac
"""
KUBECTL = """#!/bin/bash
here={here}
[ -f $here/lie-api ] && echo 'connection refused' >&2 && exit 1
case "$*" in
  *'create configmap'*) for w; do case $w in --from-literal=*) echo "${{w#*=}}" ;; esac; done ;;
  *apply*) value=$(cat)
    sed -i '/shipway-backup-canary/d' $here/keys
    echo "/registry/configmaps/kube-system/shipway-backup-canary old-$value" >> $here/keys ;;
  *kubeadm-config*) echo 'kind: ConfigMap' ;;
  *readyz*) [ -f $here/kubernetes/manifests/etcd.yaml ] && [ -f $here/kubernetes/manifests/kube-apiserver.yaml ] ;;
esac
"""
RUN = """#!/bin/bash
echo "$*" >> {here}/units
while [ "$1" != -- ]; do shift; done; shift
[ -f {here}/lie-killed ] && exit 1
exec "$@"
"""
NOTHING = "#!/bin/sh\nexit 0\n"
MANIFEST = """spec:
  containers:
  - command:
    - etcd
    - --data-dir={data}
    - --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379
    - --name=cp1
    - --initial-advertise-peer-urls=https://10.0.0.1:2380
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:3.5.16-0
"""
API = """spec:
  containers:
  - command:
    - kube-apiserver
    - --encryption-provider-config={kubernetes}/encryption.yaml
"""
KEYS = (
    *(f"/registry/pods/default/p{number} x" for number in range(20)),
    "/registry/namespaces/default here",
    "/registry/crd.projectcalico.org/ippools/one x",
    "/registry/services/specs/default/kubernetes x",
)


@dataclass
class Machine:
    """One such host, below a folder."""

    here: Path
    keep: int = 3
    days: int = 30
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        """Lay it out."""
        kubernetes, data = self.here / "kubernetes", self.here / "etcd-data"
        self.settings = Settings(
            *("te", self.keep, self.days, str(self.root), str(self.here / "programs"), str(kubernetes)),
            kubelet=str(self.here / "kubelet"),
            proc=str(self.here / "proc"),
            patience=20,
            hold=str(self.here / "hold"),
            started=str(self.here / "init-started"),
            joining=str(self.here / "joining"),
            waits=0,
            ports="",
        )
        for folder in (
            "bin",
            "image",
            "kubelet",
            "kubernetes/manifests",
            "kubernetes/pki/etcd",
            "etcd-data/member/snap",
        ):
            (self.here / folder).mkdir(parents=True, exist_ok=True)
        for name, namespace in (("self", "net:[2]"), ("1", "net:[1]")):
            (self.here / "proc" / name / "ns").mkdir(parents=True)
            (self.here / "proc" / name / "ns" / "net").symlink_to(namespace)
        (kubernetes / "manifests" / "etcd.yaml").write_text(MANIFEST.format(data=data))
        (kubernetes / "manifests" / "kube-apiserver.yaml").write_text(API.format(kubernetes=kubernetes))
        for part in ("kube-controller-manager", "kube-scheduler"):
            (kubernetes / "manifests" / f"{part}.yaml").write_text(f"kind: Pod  # {part}\n")
        (kubernetes / "pki" / "ca.crt").write_text("an authority\n")
        (kubernetes / "encryption.yaml").write_text("      secret: dGhlIGtleSB0aGF0IGFsbCBTZWNyZXRzIG5lZWQ=\n")
        (kubernetes / "admin.conf").write_text("kind: Config\n")
        (kubernetes / "pki" / "ca.key").write_text("a key\n")
        (data / "member" / "snap" / "db").write_bytes(bytes(20480))
        programs = {"image/etcd": ETCD, "image/etcdctl": ETCDCTL, "bin/ctr": CTR, "bin/kubectl": KUBECTL}
        programs |= {"bin/systemd-run": RUN, "bin/systemctl": NOTHING, "bin/sync": NOTHING}
        for path, text in programs.items():
            (self.here / path).write_text(text.format(here=self.here))
            (self.here / path).chmod(0o755)
        (self.here / "keys").write_text("\n".join(KEYS) + "\n")
        (self.here / "id").write_text("14841639068965178418")
        self.revision(100)
        (self.here / "script").write_text(render(self.settings))

    @property
    def root(self) -> Path:
        """The folder of the backups."""
        return self.here / "backups"

    def revision(self, number: int) -> None:
        """Let etcd count to here."""
        (self.here / "revision").write_text(str(number))

    def lie(self, which: str, *, on: bool = True) -> None:
        """Let a program lie from now on, or no more."""
        if on:
            (self.here / f"lie-{which}").touch()
        else:
            (self.here / f"lie-{which}").unlink()

    def run(self, *words: str) -> tuple[int, str]:
        """Run the script; return its exit status and what it said."""
        env = {"PATH": f"{self.here / 'bin'}:{os.environ['PATH']}", "HOME": "/"}
        done = subprocess.run(
            ("bash", str(self.here / "script"), *words),
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        return sorted(path.name for path in self.root.iterdir() if path.name[0].isdigit())

    def manifest(self, name: str) -> dict[str, object]:
        """Return what a backup's manifest says."""
        said: dict[str, object] = json.loads((self.root / name / "manifest.json").read_text())
        return said

    def copied(self, name: str, as_name: str, *, verified: bool = True) -> None:
        """Put a copy of a backup there under another time."""
        target = self.root / as_name
        subprocess.run(("cp", "-a", str(self.root / name), str(target)), check=True)
        if not verified:
            (target / "verified").unlink()


class Pristine:
    """A machine with a verified backup, put back to just that for each test: to take one takes most of a second."""

    def __init__(self, here: Path, copy: Path, prepare: Callable[[Machine], None] = lambda _: None) -> None:
        """Take the backup of a machine that was prepared, and keep a copy of all."""
        self._machine, self._copy = Machine(here), copy
        prepare(self._machine)
        code, said = self._machine.run("take")
        assert code == 0, said
        subprocess.run(("cp", "-a", str(here), str(copy)), check=True)

    def fresh(self) -> Machine:
        """Return the machine as it was."""
        shutil.rmtree(self._machine.here)
        subprocess.run(("cp", "-a", str(self._copy), str(self._machine.here)), check=True)
        return self._machine


@dataclass
class LocalShell:
    """A Shell that runs each script on this machine, with a machine's programs first."""

    machine: Machine

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run it by bash."""
        text = text.replace(f"PATH={PATH}", f"PATH={self.machine.here / 'bin'}:{PATH}", 1)
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", text),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(seconds):
            out, err = await shell.communicate(stdin)
        return out.decode(errors="replace"), err.decode(errors="replace")

    async def forward(self, address: str, port: int) -> int:
        """Return a port that nobody listens on."""
        del address, port
        return 1
