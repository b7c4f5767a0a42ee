"""A static pod's manifest is changed by its lines, started anew, and put back where the new one does not come up."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shipway.converge import converge
from shipway.edits.static_pod import with_flags
from shipway.errors import Refused
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.static_pods import Running, StaticPodFlags, StaticPodsRunning
from shipway.kubeadm.hardening import AUDIT_POLICY, ENCRYPTION, MOUNTS, PARTS
from shipway.kubeadm.writes import MANIFESTS
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.hardening.key import Keys, KeysThere
from shipway.steps.hardening.manifest import (
    BROKEN,
    CHANGE,
    DOWN,
    KEPT,
    RECORD,
    ManifestHardened,
    ManifestSettled,
    flags_in,
    new_manifest,
    wanted_of,
)
from shipway.steps.kubernetes.static_pods import STAYS
from tests.hardening.test_declared import at, hardened
from tests.places.facts import KnownFacts, said

POD = """apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver  # the site's remark
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.9.0.11
    - --profiling=true   # somebody looked for something
    - --oidc-issuer-url=https://id.example.com
    image: registry.example/kube-apiserver:v1.31.7
    volumeMounts:
    - mountPath: /etc/ssl/certs
      name: ca-certs
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/ssl/certs
      type: DirectoryOrCreate
    name: ca-certs
status: {}
"""
WANTED = wanted_of(hardened(), "kube-apiserver")


def test_lines_of_others_stay_byte_for_byte_and_ours_come_and_go() -> None:
    made = new_manifest("kube-apiserver", POD, WANTED)
    pod = yaml.safe_load(made)
    (container,) = pod["spec"]["containers"]
    assert flags_in(container["command"]).items() >= WANTED.flags.items()
    assert [one["name"] for one in pod["spec"]["volumes"]] == ["ca-certs", "shipway-hardening", "shipway-audit"]
    gone = set(POD.splitlines()) - set(made.splitlines())
    assert gone == {"    - --profiling=true   # somebody looked for something"}
    assert new_manifest("kube-apiserver", made, WANTED) == made
    plain = POD.replace("    - --profiling=true   # somebody looked for something\n", "")
    off = wanted_of(hardened(encryption_at_rest=False, audit={}, pod_security={}), "kube-apiserver")
    once = new_manifest("kube-apiserver", plain, wanted_of(hardened(encryption_at_rest=False), "kube-apiserver"))
    assert once != plain
    assert "audit" not in new_manifest("kube-apiserver", once, off).replace("shipway-audit", "audit")


def test_a_layout_that_is_not_understood_is_written_anew_and_says_the_same() -> None:
    flow = "kind: Pod\nspec: {containers: [{command: [kube-scheduler, --a=b], image: x}]}\n"
    made = yaml.safe_load(with_flags(flow, {"profiling": "false"}, (), MOUNTS))
    (container,) = made["spec"]["containers"]
    assert container["command"] == ["kube-scheduler", "--a=b", "--profiling=false"]
    assert len(container["volumeMounts"]) == len(made["spec"]["volumes"]) == 2


@settings(max_examples=30)
@given(
    st.dictionaries(st.sampled_from(["profiling", "a", "b-c", "audit-log-path"]), st.text("abc:/ #'", max_size=6)),
    st.sets(st.sampled_from(["oidc-issuer-url", "x"])),
)
def test_an_edit_says_what_was_meant_and_is_done_once(wanted: dict[str, str], unwanted: set[str]) -> None:
    made = with_flags(POD, wanted, unwanted)
    have = flags_in(yaml.safe_load(made)["spec"]["containers"][0]["command"])
    assert have.items() >= wanted.items()
    assert not (unwanted - set(wanted)) & set(have)
    assert have["advertise-address"] == "10.9.0.11"
    assert with_flags(made, wanted, unwanted) == made


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--audit-policy-file=/etc/site/audit.yaml", "SHW-800"),
        ("--audit-log-path=/var/log/site.log", "SHW-800"),
        ("--encryption-provider-config=/etc/site/enc.yaml", "SHW-801"),
        ("--admission-control-config-file=/etc/site/admission.yaml", "SHW-802"),
    ],
)
def test_what_is_the_sites_own_is_refused_and_never_written_over(line: str, code: str) -> None:
    text = POD.replace("--oidc-issuer-url=https://id.example.com", line)
    with pytest.raises(Refused) as caught:
        new_manifest("kube-apiserver", text, WANTED, "te1")
    assert (caught.value.code, caught.value.host) == (code, "te1")
    assert line in caught.value.message
    nothing = wanted_of(hardened(audit={}, pod_security={}, encryption_at_rest=False), "kube-apiserver")
    assert line in new_manifest("kube-apiserver", text, nothing)


def test_a_mount_of_the_sites_at_our_path_is_refused_and_no_pod_is_named_so() -> None:
    text = POD.replace("mountPath: /etc/ssl/certs", "mountPath: /var/log/kubernetes/audit/")
    with pytest.raises(Refused, match="a mount of the site's own"):
        new_manifest("kube-apiserver", text, WANTED)
    with pytest.raises(Refused) as caught:
        new_manifest("kube-apiserver", "kind: Pod\n", WANTED)
    assert caught.value.code == "SHW-809"


def test_encryption_is_not_switched_off_by_taking_it_out_of_the_file() -> None:
    made = new_manifest("kube-apiserver", POD, WANTED)
    off = wanted_of(hardened(encryption_at_rest=False), "kube-apiserver")
    with pytest.raises(Refused) as caught:
        new_manifest("kube-apiserver", made, off)
    assert caught.value.code == "SHW-810"


class Plane(KnownFacts):
    """A control plane whose API server runs with what its manifest says; `ends` is how a change of it ends."""

    def __init__(self, text: str = POD, ends: int = 0) -> None:
        super().__init__({})
        self.ends = ends
        self.manifest(text)
        for path in (AUDIT_POLICY, ENCRYPTION, WANTED.files[1]):
            self.facts[FileState(path)] = FileInfo("00", "600", "root:root", 100)
        self.facts[StaticPodsRunning()] = Running(5000, dict.fromkeys(PARTS, 2000))
        self.facts[KeysThere()] = Keys("aa", "600,root:root", whole=True)

    def manifest(self, text: str) -> None:
        """Let the kubelet run this."""
        self.facts[FileText(f"{MANIFESTS}/kube-apiserver.yaml")] = text
        words = yaml.safe_load(text)["spec"]["containers"][0]["command"]
        self.facts[StaticPodFlags("kube-apiserver")] = flags_in(words)

    async def settled(self, *names: str, seconds: int) -> None:
        """Nothing of an earlier run is at work."""
        self.done.append(f"settled {len(names)} {seconds}")

    def forget(self) -> None:
        """Look anew."""

    async def operate(self, name: str, words: Any, **_: int) -> Output:
        """Change the manifest, or say that it did not come up."""
        self.done.append(f"{name}: {' '.join(words[2:8])}")
        if self.ends == 0 and words[7]:
            self.manifest(self.written[words[7]])
        return Output(self.ends, "F0101 cannot read the policy\nready again", "")


def step(plane_again: bool = False, **more: Any) -> ManifestHardened:  # noqa: FBT001, FBT002 - a field's value
    return ManifestHardened("kube-apiserver", "te1", "10.9.0.11", 6443, WANTED, again=plane_again, **more)


async def test_a_second_run_changes_nothing() -> None:
    plane = Plane()
    (result,) = await converge([step()], plane, Impact.SERVICE)
    assert (result.outcome, result.error) == ("changed", None)
    assert result.drift is not None
    assert "no --audit-policy-file" in result.drift.have
    assert [line.split(":")[0] for line in plane.done] == ["restart-kube-apiserver"]
    (again,) = await converge([step()], plane, Impact.SERVICE)
    assert (again.outcome, len(plane.done)) == ("ok", 1)


async def test_what_runs_decides_and_not_what_the_manifest_says() -> None:
    plane = Plane(new_manifest("kube-apiserver", POD, WANTED))
    assert await step().check(plane) is None
    plane.facts[FileState(AUDIT_POLICY)] = FileInfo("01", "600", "root:root", 3000)
    assert "started before" in str(await step().check(plane))
    plane.facts[StaticPodFlags("kube-apiserver")] = {}
    assert "runs without --audit-policy-file" in str(await step().check(plane))
    plane.facts[StaticPodFlags("kube-apiserver")] = None
    assert "does not run" in str(await step().check(plane))


@pytest.mark.parametrize(("ends", "code"), [(BROKEN, "SHW-808"), (DOWN, "SHW-812"), (STAYS, "SHW-744")])
async def test_one_that_does_not_come_up_says_why_and_what_is_there_now(ends: int, code: str) -> None:
    (result,) = await converge([step()], Plane(ends=ends), Impact.SERVICE)
    assert result.error is not None
    assert (result.outcome, result.error.code) == ("failed", code)
    assert "cannot read the policy" in result.error.message


async def test_nothing_is_started_without_the_files_it_reads_or_beside_one_that_lacks_the_key() -> None:
    plane = Plane()
    plane.facts[FileState(AUDIT_POLICY)] = None
    (result,) = await converge([step()], plane, Impact.SERVICE)
    assert result.error is not None
    assert "would not start without it" in result.error.message
    other = Plane()
    other.name = "te3"
    for keys in (Keys(), Keys("bb", "600,root:root", whole=True)):
        other.facts[KeysThere()] = keys
        plane = Plane()
        (result,) = await converge([step(peers=(other,))], plane, Impact.SERVICE)
        assert result.error is not None
        assert "te3 has not the same key yet" in result.error.message
        assert plane.done == []


async def test_a_repair_brings_back_only_what_the_cluster_had() -> None:
    plane = Plane()
    (result,) = await converge([step(plane_again=True)], plane, Impact.SERVICE)
    assert (result.outcome, plane.done) == ("drifted", [])
    assert "`shipway harden FILE` brings it" in str(result.drift)
    plane.facts[RECORD] = said("\n".join(WANTED.flags))
    (result,) = await converge([step(plane_again=True)], plane, Impact.SERVICE)
    assert result.outcome == "changed"


async def test_a_change_that_broke_off_is_settled_and_nothing_left_is_nothing_to_do() -> None:
    settle, plane = ManifestSettled("te1", "10.9.0.11", 6443), Plane(ends=BROKEN)
    assert await settle.check(plane) is None
    plane.facts[Listing(KEPT)] = ("kube-apiserver.yaml",)
    assert KEPT in str(await settle.check(plane))
    await settle.apply(plane)
    assert plane.done[-1].startswith("restart-kube-apiserver: kube-apiserver kube-apiserver-te1")


# --- the script itself, with stand-ins for containerd and the API

CTR = """#!/bin/bash
case "$*" in
  *'tasks ls'*) [ ! -f {here}/manifests/kube-apiserver.yaml ] && [ ! -f {here}/stays ] || echo "c1 1 RUNNING" ;;
  *) echo c1 ;;
esac
"""
READY = """#!/bin/bash
manifest={here}/manifests/kube-apiserver.yaml
if [ -f {here}/kill ] && grep -q new "$manifest"; then
  kill -$(cat {here}/kill) $(cat {here}/pid); rm {here}/kill; exit 1
fi
grep -qs good "$manifest" && exit 0
folder={here}/pods/kube-system_kube-apiserver-te1_uid/kube-apiserver
mkdir -p $folder
echo "2026 stderr F E0101 error: invalid key c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" > $folder/2.log
exit 1
"""


@dataclass
class Folder:
    """A control plane that is a folder: a pod runs while its manifest is there, and is ready where that says `good`."""

    here: Path

    def __post_init__(self) -> None:
        """Lay it out."""
        for name in ("manifests", "bin", "pods"):
            (self.here / name).mkdir()
        self.old.write_text("old good\n")
        self.old.chmod(0o600)
        (self.here / "new.yaml").write_text("new good\n")
        (self.here / "script").write_text(CHANGE.replace("/var/log/pods", str(self.here / "pods")))
        for name, text in (
            ("ctr", CTR),
            ("is-ready", READY),
            *((each, "#!/bin/sh\n") for each in ("sleep", "sync", "crictl")),
        ):
            (self.here / "bin" / name).write_text(text.format(here=self.here))
            (self.here / "bin" / name).chmod(0o755)

    @property
    def old(self) -> Path:
        """The manifest."""
        return self.here / "manifests" / "kube-apiserver.yaml"

    def run(self, new: str = "new.yaml", gone: int = 2) -> tuple[int, str]:
        """Run the script; return its exit status and what it said."""
        path = str(self.here / new) if new else ""
        places = [str(self.here / name) for name in ("manifests", "away", "kept")]
        words = ("kube-apiserver", "kube-apiserver-te1", *places, path, str(gone), "5", "2", "is-ready")
        env = {"PATH": f"{self.here / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ("bash", "-c", 'echo $$ > "$0/pid"; exec bash "$0/script" "$@"', str(self.here), *words),
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout

    def left(self) -> list[str]:
        """Return what lies in the folders of what is away and what is kept."""
        return sorted(
            str(path.relative_to(self.here)) for name in ("away", "kept") for path in (self.here / name).glob("*")
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_new_manifest_that_is_ready_stays(folder: Folder) -> None:
    assert folder.run() == (0, "kube-apiserver-te1 is ready with its new manifest\n")
    assert (folder.old.read_text(), folder.left()) == ("new good\n", [])


def test_what_has_ended_is_removed_before_the_old_manifest_comes_back_too(folder: Folder) -> None:
    """The same pod again, for which the kubelet would wait by its containers that have ended."""
    text = """#!/bin/sh
ls {here}/manifests >>{here}/removed
echo "$*" >>{here}/removed
touch {here}/gone
"""
    (folder.here / "bin" / "ctr").write_text(
        CTR.replace("*) echo c1", "*'kind'*) [ -e {here}/gone ] || echo c1 ;;\n  *) echo c1").format(here=folder.here)
    )
    (folder.here / "bin" / "crictl").write_text(text.format(here=folder.here))
    (folder.here / "new.yaml").write_text("new and wrong\n")
    (folder.here / "bin" / "is-ready").write_text(
        f"#!/bin/sh\nrm -f {folder.here}/gone\n{READY.format(here=folder.here).removeprefix('#!/bin/bash')}"
    )
    assert folder.run()[0] == BROKEN
    removed = (folder.here / "removed").read_text().splitlines()
    assert removed == ["--runtime-endpoint unix:///run/containerd/containerd.sock rm c1"] * 2
    assert folder.old.read_text() == "old good\n"


def test_a_new_manifest_that_is_not_ready_is_taken_back_and_no_key_is_said(folder: Folder) -> None:
    (folder.here / "new.yaml").write_text("new and wrong\n")
    code, words = folder.run()
    assert code == BROKEN
    assert "error: invalid key [hidden]" in words
    assert "c2VjcmV0" not in words
    assert (folder.old.read_text(), folder.old.stat().st_mode & 0o777, folder.left()) == ("old good\n", 0o600, [])


def test_an_old_pod_that_does_not_end_keeps_its_manifest(folder: Folder) -> None:
    (folder.here / "stays").touch()
    assert folder.run(gone=0)[0] == STAYS
    assert (folder.old.read_text(), folder.left()) == ("old good\n", [])


@pytest.mark.parametrize(
    ("text", "code", "ends"), [("new good\n", 0, "new good\n"), ("new, wrong\n", BROKEN, "old good\n")]
)
def test_one_that_is_killed_is_decided_by_what_is_ready(folder: Folder, text: str, code: int, ends: str) -> None:
    (folder.here / "new.yaml").write_text(text)
    (folder.here / "kill").write_text("KILL")
    assert folder.run()[0] == -9
    assert (folder.old.read_text(), folder.left()) == (text, ["kept/.began", "kept/kube-apiserver.yaml"])
    assert folder.run("")[0] == code
    assert (folder.old.read_text(), folder.left()) == (ends, [])


def test_one_that_is_stopped_puts_the_old_manifest_back(folder: Folder) -> None:
    (folder.here / "kill").write_text("TERM")
    assert folder.run()[0] == 143
    assert folder.old.read_text() == "old good\n"
    assert folder.run("")[0] == 0
    assert folder.left() == []


def test_a_version_without_pod_security_has_no_such_flag_when_it_is_off() -> None:
    old = at("1.20.2", pod_security={})
    assert "admission-control-config-file" not in wanted_of(old, "kube-apiserver").flags
