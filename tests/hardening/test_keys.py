"""The key of encryption at rest is made where there is none anywhere, never said, never replaced."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipway.backup.script import ROOT
from shipway.converge import converge, look_at_all
from shipway.errors import Blocked, CommandFailed, Refused
from shipway.facts.files import FileText, Listing
from shipway.facts.static_pods import StaticPodFlags
from shipway.kubeadm.hardening import ENCRYPTION
from shipway.ownership.evidence import ETCD
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.hardening.key import LOOK, MAKE, EncryptionKeyThere, Keys, KeysThere, choose
from shipway.steps.hardening.stored import ENCRYPTED, PREFIX, SEAL, SecretsSealed, SecretsStored, Stored
from shipway.steps.hardening.stored import LOOK as COUNT
from shipway.steps.hardening.stored import OWN as OWN_LETTERS
from tests.places.facts import KnownFacts

OWN = Keys("aa", "600,root:root", whole=True)
OTHER = Keys("bb", "600,root:root", whole=True)
BACKUP = f"{ROOT}/20261129T000000Z/files{ENCRYPTION}"


def test_one_is_made_only_where_nothing_says_that_there_was_one() -> None:
    assert choose("cp1", Keys(), (), (), None) == "make"
    assert choose("cp1", Keys(), [("cp2", Keys())], (), Stored(plain=9)) == "make"
    assert choose("cp1", Keys(), [("cp2", OWN), ("cp3", OWN)], (), None) == "copy"
    assert choose("cp1", OWN, [("cp2", Keys())], ("x",), Stored(own=3)) == "there"


@pytest.mark.parametrize(
    ("keys", "peers", "kept", "stored", "sign"),
    [
        (Keys(backups=("a", BACKUP)), [], (), None, f"a backup has one ({BACKUP} on cp1)"),
        (Keys(), [("cp2", Keys(backups=(BACKUP,)))], (), None, "on cp2"),
        (Keys(), [], ("/srv/te/b",), None, "/srv/te/b on this machine"),
        (Keys(flag=ENCRYPTION), [], (), None, "the API server of cp1 is told to use it"),
        (Keys(), [("cp2", Keys(flag=ENCRYPTION))], (), None, "the API server of cp2"),
        (Keys(), [], (), Stored(own=4, plain=1), "4 Secrets in etcd are encrypted"),
        (Keys(), [], (), Stored(other=2), "2 Secrets in etcd are encrypted"),
    ],
)
def test_a_key_that_is_lost_here_is_asked_for_and_no_new_one_is_made(
    keys: Keys, peers: Any, kept: Any, stored: Stored | None, sign: str
) -> None:
    with pytest.raises(Refused) as caught:
        choose("cp1", keys, peers, kept, stored)
    assert caught.value.code == "SHW-805"
    assert sign in caught.value.message
    assert "install -D -m 600" in caught.value.fix


def test_two_keys_and_a_configuration_of_the_sites_own_are_for_a_person() -> None:
    with pytest.raises(Refused) as caught:
        choose("cp1", OWN, [("cp2", OTHER)], (), None)
    assert (caught.value.code, "cp1, cp2" in caught.value.message) == ("SHW-806", True)
    for keys in (Keys(flag="/etc/site.yaml"), Keys(others=("/etc/kubernetes/enc.yaml",)), Keys("aa", "600,root:root")):
        with pytest.raises(Refused) as caught:
            choose("cp1", keys, (), (), None)
        assert caught.value.code == "SHW-801"
    with pytest.raises(Refused, match=r"/etc/site\.yaml"):
        choose("cp1", Keys(), [("cp2", Keys(flag="/etc/site.yaml"))], (), None)


class Plane(KnownFacts):
    """A control plane on which a key is made by its script."""

    def __init__(self, keys: Keys = Keys(), stored: Stored | None = None, name: str = "cp1") -> None:  # noqa: B008
        super().__init__({KeysThere(): keys, SecretsStored(): stored})
        self.name = name

    async def succeed(self, name: str, words: Any, **_: int) -> Output:
        """Make one."""
        self.facts[KeysThere()] = OWN
        return await super().succeed(name, words)

    async def write(self, path: str, content: bytes, **how: str) -> None:
        """Take one that is brought."""
        await super().write(path, content, **how)
        if path == ENCRYPTION:
            self.facts[KeysThere()] = OWN

    def forget(self) -> None:
        """Look anew."""


async def test_it_is_made_on_the_host_and_brought_from_another_control_plane() -> None:
    alone = Plane()
    (result,) = await converge([EncryptionKeyThere()], alone, Impact.FILES)
    assert (result.outcome, alone.done) == (
        "changed",
        [f"encryption-key: bash /run/shipway/make-encryption-key.sh {ENCRYPTION}"],
    )
    has, lacks = Plane(OWN, name="cp2"), Plane()
    has.facts[FileText(ENCRYPTION)] = "the very text\n"
    (result,) = await converge([EncryptionKeyThere((has,), None, 1)], lacks, Impact.FILES)  # type: ignore[arg-type]
    assert (result.outcome, lacks.written[ENCRYPTION]) == ("changed", "the very text\n")
    assert "the very text" not in str(result)


async def test_without_an_answer_of_all_who_may_have_one_none_is_made(tmp_path: Path) -> None:
    etcd = Plane()
    etcd.facts[Listing(ETCD)] = ("member",)
    with pytest.raises(Blocked, match="etcd has data and does not answer"):
        await EncryptionKeyThere().check(etcd)
    with pytest.raises(Blocked, match="not every control plane was asked"):
        await EncryptionKeyThere((), None, 2).check(Plane())
    kept = tmp_path / "20261129T000000Z" / f"files{ENCRYPTION}"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    (result,) = await look_at_all([EncryptionKeyThere((), tmp_path)], Plane())
    assert result.error is not None
    assert result.error.code == "SHW-805"


async def test_secrets_are_counted_only_where_a_key_would_be_made() -> None:
    """Each count reads every Secret in etcd, and a drift pass looks at the key every half hour."""
    for mine, other in ((OWN, OWN), (OWN, Keys()), (Keys(), OWN)):
        plane = Plane(mine, Stored(plain=9))
        plane.facts[Listing(ETCD)] = ("member",)
        await look_at_all([EncryptionKeyThere((Plane(other, name="cp2"),), None, 1)], plane)  # type: ignore[arg-type]
        assert SecretsStored() not in plane.asked
    encrypted = Plane(Keys(), Stored(own=9))
    encrypted.facts[Listing(ETCD)] = ("member",)
    (result,) = await look_at_all([EncryptionKeyThere()], encrypted)
    assert result.error is not None
    assert "9 Secrets in etcd are encrypted" in result.error.message


async def test_a_key_that_others_may_read_is_closed() -> None:
    plane = Plane(Keys("aa", "644,root:root", whole=True))
    assert "644" in str(await EncryptionKeyThere().check(plane))
    await EncryptionKeyThere().apply(plane)
    assert plane.done == [f"chmod 600 -- {ENCRYPTION}", f"chown root:root -- {ENCRYPTION}"]


def run(script: str, *words: str, path: Path | None = None) -> tuple[int, str]:
    env = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    done = subprocess.run(
        ("bash", "-c", script, *words), env=env, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_script_makes_one_that_is_roots_alone_and_never_writes_over_one(tmp_path: Path) -> None:
    file = tmp_path / "shipway" / "encryption.yaml"
    code, said = run(MAKE, "bash", str(file))
    assert (code, said) == (0, "")
    (resource,) = yaml.safe_load(file.read_text())["resources"]
    box, last = resource["providers"]
    (key,) = box["secretbox"]["keys"]
    assert (len(base64.b64decode(key["secret"])), last) == (32, {"identity": {}})
    assert PREFIX.split(":")[-2] == key["name"]
    assert len(PREFIX) % 3 == 0  # its Base64 has no part of what follows
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = file.read_bytes()
    code, said = run(MAKE, "bash", str(file))
    assert code != 0
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["encryption.yaml"]


def test_the_look_finds_ours_theirs_and_copies_in_backups_and_says_no_key(tmp_path: Path) -> None:
    etc, backups = tmp_path / "kubernetes", tmp_path / "backups"
    own = etc / "shipway" / "encryption.yaml"
    assert run(LOOK, str(own), str(etc), str(backups)) == (0, "")
    run(MAKE, "bash", str(own))
    copy = backups / "20261129T000000Z" / "files" / str(own)[1:]
    copy.parent.mkdir(parents=True)
    copy.write_bytes(own.read_bytes())
    (etc / "manifests").mkdir()
    (etc / "manifests" / "kube-apiserver.yaml").write_text("    - --encryption-provider-config=/site/enc.yaml\n")
    (etc / "enc").mkdir()
    (etc / "enc" / "theirs.yaml").write_text('{"kind": "EncryptionConfiguration"}\n')
    code, said = run(LOOK, str(own), str(etc), str(backups))
    keys = KeysThere().parse(Output(code, said, ""))
    (secret,) = [line.split()[-1] for line in own.read_text().splitlines() if "secret:" in line]
    assert secret not in said
    assert (keys.whole, keys.flag, keys.backups) == (True, "/site/enc.yaml", (str(copy),))
    assert keys.others == (str(etc / "enc" / "theirs.yaml"),)
    assert keys.mode.startswith("600,")
    own.write_text("kind: EncryptionConfiguration\n")
    assert not KeysThere().parse(Output(*run(LOOK, str(own), str(etc), str(backups)), "")).whole
    with pytest.raises(CommandFailed):
        KeysThere().parse(Output(124, "", ""))


def values(*texts: bytes) -> str:
    kvs = [{"key": "L3g=", "create_revision": 5, "value": base64.b64encode(text).decode()} for text in texts]
    return json.dumps({"header": {"revision": 9}, "kvs": kvs, "count": len(kvs)}, separators=(",", ":"))


def test_secrets_are_counted_by_how_they_begin(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "etcd.yaml").write_text(
        "    - --listen-client-urls=https://10.0.0.1:2379,https://127.0.0.1:2379\n"
    )
    sealed = PREFIX.encode()
    stored = (
        sealed + b"a",
        sealed + b"bcd",
        b"k8s\x00\n\x0fplain secret",
        b"k8s:enc:aescbc:v1:other:x",
        b"k8s:enc:secretbox:v1:x:",
    )
    ctr = (
        "#!/bin/bash\ncase \"$*\" in *'tasks ls'*) echo 'e1 7 RUNNING' ;; *'containers ls'*) printf 'e0\\ne1\\n' ;;\n"
        f'*exec*) echo "$*" > {tmp_path}/asked; cat {tmp_path}/values ;; esac\n'
    )
    (tmp_path / "ctr").write_text(ctr)
    (tmp_path / "ctr").chmod(0o755)
    (tmp_path / "values").write_text(values(*stored) + "\n")
    code, said = run(COUNT, str(tmp_path), OWN_LETTERS, ENCRYPTED, path=tmp_path)
    assert SecretsStored().parse(Output(code, said, "")) == Stored(own=2, other=2, plain=1)
    assert sorted(said.split()) == sorted(["own", "2", "other", "2", "plain", "1"])
    asked = (tmp_path / "asked").read_text()
    assert " e1 etcdctl --endpoints=https://127.0.0.1:2379 " in asked
    assert "get /registry/secrets/ --prefix -w json" in asked
    (tmp_path / "values").write_text(values() + "\n")
    assert (
        SecretsStored().parse(Output(*run(COUNT, str(tmp_path), OWN_LETTERS, ENCRYPTED, path=tmp_path), "")) == Stored()
    )
    (tmp_path / "manifests" / "etcd.yaml").unlink()
    assert SecretsStored().parse(Output(*run(COUNT, str(tmp_path), OWN_LETTERS, ENCRYPTED, path=tmp_path), "")) is None


class Sealing(Plane):
    """A control plane whose Secrets are encrypted when they are written again, unless the API refuses some."""

    refuses = ""

    async def operate(self, name: str, words: Any, **_: int) -> Output:
        """Write all again."""
        self.done.append(f"{name} {words[-1]}")
        self.facts[SecretsStored()] = Stored(own=7)
        return Output(1 if self.refuses else 0, self.refuses, "")


def uses(plane: Plane, path: str = ENCRYPTION) -> Plane:
    plane.facts[StaticPodFlags("kube-apiserver")] = {"encryption-provider-config": path}
    return plane


async def test_secrets_are_written_again_once_every_api_server_can_read_them() -> None:
    plane, other = uses(Sealing(OWN, Stored(plain=7))), Plane(OWN, name="cp2")
    step = SecretsSealed("10.0.0.1", 6443, (other,))  # type: ignore[arg-type] - a double of a host
    (result,) = await converge([step], plane, Impact.SERVICE)
    assert (result.outcome, plane.done) == ("drifted", [])
    uses(other)
    (result,) = await converge([step], plane, Impact.SERVICE)
    assert (result.outcome, plane.done) == ("changed", ["seal-secrets https://10.0.0.1:6443"])
    (result,) = await converge([step], plane, Impact.SERVICE)
    assert (result.outcome, len(plane.done)) == ("ok", 1)


async def test_what_cannot_be_written_or_seen_is_said() -> None:
    plane = uses(Sealing(OWN, Stored(plain=1)))
    plane.refuses = "te: Error from server (Forbidden): denied by a webhook"
    (result,) = await converge([SecretsSealed("fd00::1", 6443)], plane, Impact.SERVICE)
    assert result.error is not None
    assert (result.error.code, plane.done) == ("SHW-807", ["seal-secrets https://[fd00::1]:6443"])
    assert "denied by a webhook" in result.error.message
    with pytest.raises(Blocked, match="cannot be looked at"):
        await SecretsSealed("10.0.0.1", 6443).check(Plane())


def test_secrets_go_from_one_kubectl_to_the_other_and_are_said_nowhere(tmp_path: Path) -> None:
    kubectl = """#!/bin/bash
case "$*" in
  *jsonpath*) printf 'a\\na\\nb\\n' ;;
  *'replace -f -'*) grep -q secret-value && echo replaced
    [ -f HERE/tried ] || { touch HERE/tried; echo 'Error from server (Conflict): secrets "s" changed' >&2; exit 1; } ;;
  *'get secrets -o json'*) echo '{"data": "secret-value"}'; echo "$*" >> HERE/asked ;;
esac
"""
    for name, text in (("kubectl", kubectl.replace("HERE", str(tmp_path))), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    code, said = run(SEAL, "bash", "https://10.0.0.1:6443", path=tmp_path)
    assert code == 0
    assert "Conflict" in said
    assert "secret-value" not in said
    assert len((tmp_path / "asked").read_text().splitlines()) == 4  # two namespaces, and once again
