"""No field of a cluster file and no answer of a host is ever more than a word to a shell.

Each field is found by walking the model, so that a new one cannot be forgotten. What the file's check takes, and then
every text of the model unchecked, goes through all steps of a host, over real SSH, into a real `sh` whose programs are
stand-ins: what they were started with must be the words that the steps gave, and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pysequoia import Tsk

import shipway.host.exchanges
import shipway.host.session
import shipway.os.debian.apt
import shipway.script
from shipway.cluster.fields import _group_by_section
from shipway.cluster.model import Cluster
from shipway.cluster.profiles import merge, profile_data
from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from tests.places.standins import StandIns, stand_ins
from tests.security.hostile import KEY, MARK, OTHER, PAYLOADS, WHOLE, Where, fields, places, with_value
from tests.security.hostile_hosts import TEXTS, Watched, driven, heard, judged, two_hosts

BASE = profile_data("current")
# Fields that may hold any text: paths of the controller, which no shell sees, and what goes into kubeadm's file.
ANY_TEXT = re.compile(
    r"(\.|^)(key|path|known_hosts|state_dir|credentials|ca)$|^ssh\.(config|sudo_password_file)$|^backup\.keep_local$|^hardening\.audit\.policy$|^network\.manifests\[]$|^kubernetes\.(kubelet|kube_proxy)\."
)
DANGEROUS = re.compile(r"[\s;|&$`\"'<>()\\\x00-\x1f\x7f\u2028]|^[-~*]")


def taken(data: dict[str, Any]) -> bool:
    """Tell whether the file's check takes the data; the model is asked first, for it is quicker."""
    try:
        Cluster.model_validate(merge(BASE, data))
        parse_cluster(yaml.safe_dump(data))
    except (ValidationError, Refused):
        return False
    return True


def at(data: dict[str, Any], where: Where) -> Any:
    """Return what stands at a place; of a key, the key."""
    if where[-1] == KEY:
        return where[-2]
    for part in where:
        data = data[part]  # type: ignore[index]
    return data


def test_the_sample_files_fill_every_field_of_the_model() -> None:
    filled = {field for data in (WHOLE, OTHER) for _, field in places(data)}
    assert filled == set(fields(Cluster))
    assert len(filled) > 80
    for data in (WHOLE, OTHER):
        parse_cluster(yaml.safe_dump(data))


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_hostile_value_is_refused_in_every_field_but_paths_and_kubeadms_own(payload: str) -> None:
    tried: Counter[str] = Counter()
    wrong = []
    for data in (WHOLE, OTHER):
        for where, field in places(data):
            for value in (payload, f"{at(data, where)}{payload}"):
                tried[field] += 1
                if not ANY_TEXT.search(field) and DANGEROUS.search(value) and taken(with_value(data, where, value)):
                    wrong.append(f"{field}: {value!r}")
    assert set(tried) == set(fields(Cluster))
    assert wrong == []


def test_a_refusal_is_one_of_ours_and_does_not_steer_the_terminal() -> None:
    for payload in PAYLOADS:
        with pytest.raises(Refused) as refused:
            parse_cluster(yaml.safe_dump({**WHOLE, "name": payload, "hosts": [payload]}))
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028]", str(refused.value))


def unchecked(part: Any, payload: str, kind: Any = None) -> Any:
    """Return a part of a cluster with the payload behind every text, past the file's check; choices stay."""
    if isinstance(part, BaseModel):
        pairs = {
            name: unchecked(getattr(part, name), payload, info.annotation)
            for name, info in type(part).model_fields.items()
        }
        return part.model_copy(update=pairs)
    if isinstance(part, dict):
        parts = {key: key if isinstance(inner, BaseModel) else f"{key}{payload}" for key, inner in part.items()}
        return {parts[key]: unchecked(inner, payload) for key, inner in part.items()}
    if isinstance(part, tuple):
        return tuple(one if get_origin(_inner(kind)) is Literal else unchecked(one, payload) for one in part)
    choice = get_origin(_group_by_section(kind)) is Literal if kind is not None else False
    return f"{part}{payload}" if isinstance(part, str) and not choice else part


def _inner(kind: Any) -> Any:
    return _group_by_section(kind.__args__[0]) if hasattr(kind, "__args__") else None


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    seen = Watched()
    plain = shipway.script.compose

    def compose(commands: Sequence[Sequence[str]], **more: Any) -> tuple[str, str]:
        seen.words += [tuple(words) for words in (*commands, *more.get("after", ()))]
        return plain(commands, **more)

    monkeypatch.setattr(shipway.host.exchanges, "compose", compose)
    return seen


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """The whole PATH of a script is stand-ins: no real program of this machine is within its reach."""
    made = stand_ins(tmp_path / "standins")
    prologue = shipway.script.PROLOGUE.replace(f"PATH={shipway.script.PATH}", f"PATH={made.folder}")
    assert prologue != shipway.script.PROLOGUE
    monkeypatch.setattr(shipway.script, "PROLOGUE", prologue)
    monkeypatch.setattr(shipway.os.debian.apt, "APT_HELPER", "apt-helper")
    monkeypatch.setenv("PATH", str(made.folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return an apt key's file and its fingerprint."""
    made = Tsk.generate("site <site@example.com>").extract_certificate()
    path = tmp_path_factory.mktemp("keys") / "key.asc"
    path.write_text(str(made))
    return path, made.fingerprint.upper()


def pinned(data: dict[str, Any], key: tuple[Path, str]) -> dict[str, Any]:
    """Return the data with apt keys and other files of the controller that are there."""
    declared = {"path": str(key[0]), "fingerprint": key[1]}
    apt = {name: {**one, "key": declared} for name, one in data["sources"]["apt"].items()}
    authority = key[0].with_name("ca.pem")
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    registries = {**data["sources"]["registries"], "ca.example.com": {"ca": str(authority)}}
    policy = key[0].with_name("audit.yaml")
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
    data = with_value(data, ("hardening", "audit", "policy"), str(policy))
    return {**data, "sources": {**data["sources"], "apt": apt, "registries": registries}}


@pytest.mark.long
@pytest.mark.parametrize("host", ["rubbish", "far"])
@pytest.mark.parametrize("file", ["as it may be", "past its check"])
async def test_nothing_of_a_hostile_file_or_host_runs(  # noqa: PLR0917 - parameters and fixtures
    file: str, host: str, key: tuple[Path, str], watched: Watched, programs: StandIns, tmp_path: Path
) -> None:
    data = pinned(WHOLE, key)
    everything = "".join(TEXTS)
    if file == "as it may be":
        data = with_value(data, ("kubernetes", "kubelet"), {one: one for one in TEXTS})
        data = with_value(data, ("kubernetes", "kube_proxy"), {"x": list(TEXTS)})
        data = with_value(data, ("ssh", "known_hosts"), f"/x{everything}")
    cluster = parse_cluster(yaml.safe_dump(data))
    if file == "past its check":
        cluster = unchecked(cluster, everything)
        assert everything in cluster.sources.apt["docker"].uri
        assert everything in cluster.hosts[1].name
        key[0].with_name(f"{key[0].name}{everything}").write_bytes(key[0].read_bytes())
        key[0].with_name(f"ca.pem{everything}").write_text("-----BEGIN CERTIFICATE-----\n")
        key[0].with_name(f"audit.yaml{everything}").write_bytes(key[0].with_name("audit.yaml").read_bytes())
    answers = heard(cluster.name, apt_key=key[0].read_bytes())[host]
    for program, text in answers.items():
        programs.answer(program, text)
    counted = await driven(cluster, tmp_path)
    ran = judged(watched, programs, tmp_path / "work")
    print(f"{file}, {host}: {sum(counted.values())} looks and changes {dict(counted)}, {ran} programs ran")
    assert counted["done"] > 30
    assert ran > 300
    ends = [words for words in programs.ran() if words[0] == "cat" and words[-1].endswith("gpus-0000000000000000.pid")]
    assert len(ends) == 1, "what ends a guarded command has asked for its guard"
    given = {word for words in watched.words for word in words}
    if host == "far":  # its names did become words of commands
        assert {f"$(touch${{IFS}}{MARK}).swap", f"/etc/cni/net.d/$(touch {MARK})"} <= given
        assert f"/home/$(touch {MARK})/.kube/config" in given
    if host == "far" and file == "as it may be":
        assert "/etc/apt/sources.list.d/site.list" in given
        assert f"/etc/apt/sources.list.d/a;touch {MARK};.list" not in given  # apt reads no file of such a name
        assert f"kubelet=1.34.2-$(touch {MARK})" in given


async def test_a_shell_that_was_given_glued_words_would_be_found(
    watched: Watched, programs: StandIns, tmp_path: Path
) -> None:
    async with two_hosts(tmp_path) as (on, _):
        await on.do(shipway.host.session.Command(("sh", "-c", f"cat $(touch {MARK})")))
    with pytest.raises(AssertionError):
        judged(watched, programs, tmp_path / "work")
