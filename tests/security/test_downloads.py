"""What is downloaded is checked before it is used: keys by fingerprint, and nothing beside the pinned one is kept."""

from __future__ import annotations

import base64
import hashlib

import pytest
from pysequoia import Tsk

from lab.simulated.wire import Line
from shipway.cluster.parts import AptRepository, Key
from shipway.errors import Permanent, ShipwayError
from shipway.host.operation import EXITED
from shipway.host.session import Host
from shipway.os.debian.apt import APT_HELPER, RepositoryIs
from shipway.os.signing_key import read_key
from shipway.script import Output
from tests.places.answering_shell import AnsweringShell

PINNED, OTHER = (Tsk.generate(f"{name} <{name}@example.com>").extract_certificate() for name in ("site", "evil"))
FINGERPRINT = PINNED.fingerprint.upper()
LIST = "/etc/apt/sources.list.d/shipway-docker.list"
KEYRING = "/etc/apt/keyrings/shipway-docker.asc"


def binary(armored: str) -> bytes:
    """Return an armored key as bytes."""
    body = armored.split("\n\n", 1)[1].split("\n=", 1)[0].split("-----END", 1)[0]
    return base64.b64decode("".join(body.split()))


TWO = {
    "two armored blocks": f"{PINNED}\n{OTHER}".encode(),
    "the other first": f"{OTHER}\n{PINNED}".encode(),
    "one binary ring": binary(str(OTHER)) + binary(str(PINNED)),
}


def serving(key: bytes) -> AnsweringShell:
    """Return a Shell whose host downloads this key; everything else it does well, and says nothing."""

    def answer(line: Line) -> Output:
        said = base64.b64encode(key).decode() if "base64" in line.words else ""
        return Output(0, said, EXITED if line.words[0] == "systemd-run" else "")

    return AnsweringShell(answer)


def repository(fingerprint: str | None = FINGERPRINT) -> RepositoryIs:
    key = Key(url="https://mirror.example.com/key.asc", fingerprint=fingerprint)
    return RepositoryIs("docker", AptRepository(uri="https://mirror.example.com", suite="/", key=key), (1, 34))


@pytest.mark.parametrize("served", TWO)
def test_of_a_key_file_with_another_key_in_it_only_the_pinned_one_is_kept(served: str) -> None:
    key = read_key(TWO[served], FINGERPRINT)
    assert key.fingerprints == (FINGERPRINT,)
    again = read_key(key.armored.encode())
    assert again.fingerprints == (FINGERPRINT,)
    assert OTHER.fingerprint.upper() not in key.armored.upper().replace(" ", "")


def test_a_key_file_expires_with_the_longest_lived_of_what_is_kept_of_it() -> None:
    made = [Tsk.generate(f"{one} <{one}@example.com>", validity_seconds=1000 * one) for one in (1, 2)]
    short, long = (one.extract_certificate() for one in made)
    both = f"{short}\n{long}".encode()
    ends = [int(one.expiration.timestamp()) for one in (short, long) if one.expiration]
    assert [read_key(both, pin).expires for pin in (short.fingerprint.upper(), None)] == ends
    assert read_key(f"{short}\n{PINNED}".encode()).expires == 0
    assert read_key(f"{short}\n{PINNED}".encode(), short.fingerprint.upper()).expires == ends[0]


@pytest.mark.parametrize(
    "served",
    [binary(str(PINNED)), str(PINNED).encode(), f"# site\n\n{PINNED}".encode()],
    ids=["binary", "armored", "armored after a comment"],  # each worker makes keys of its own
)
def test_a_key_is_put_in_place_in_armor_however_it_is_served(served: bytes) -> None:
    """The name of the keyring ends in .asc: apt takes nothing but armor there."""
    assert read_key(served).armored.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")


@pytest.mark.parametrize("served", TWO)
async def test_a_host_is_given_the_pinned_key_alone(served: str) -> None:
    shell = serving(TWO[served])
    await repository().apply(Host("w1", shell))
    assert shell.fed.count(b"BEGIN PGP PUBLIC KEY BLOCK") == 1
    ran = [line.words for line in shell.lines]
    fetched = next(at for at, words in enumerate(ran) if APT_HELPER in words)
    assert ran[fetched][-2:] == ("https://mirror.example.com/key.asc", f"{KEYRING}.fetched")
    removed = [words for words in ran[fetched:] if words[-3:] == ("rm", "-f", f"{KEYRING}.fetched")]
    assert removed, "what was fetched and not checked does not stay"
    armored = shell.fed[: shell.fed.index(b"-----END PGP PUBLIC KEY BLOCK-----\n") + 35]
    assert read_key(armored).fingerprints == (FINGERPRINT,)


@pytest.mark.parametrize(
    "served",
    [str(OTHER).encode(), b"", b"<html>403</html>", "not ASCII: \u00e9".encode(), str(PINNED).encode()[:200]],
    ids=["another key", "nothing", "a page", "not ASCII", "half of the key"],
)
async def test_another_key_or_none_is_refused_and_nothing_is_put_in_place(served: bytes) -> None:
    shell = serving(served)
    with pytest.raises(Permanent, match="is not accepted") as refused:
        await repository().apply(Host("w1", shell))
    assert refused.value.code == "SHW-306"
    assert shell.fed == b""
    assert not [line for line in shell.lines if line.words[0] == "mv" or "update" in line.words]


async def test_a_keyring_that_was_changed_or_holds_another_key_is_drift() -> None:
    digest = hashlib.sha256(b"key").hexdigest()
    for have, noted, fingerprints, drifts in (
        (digest, digest, FINGERPRINT, False),
        ("0" * 64, digest, FINGERPRINT, True),
        (digest, digest, f"{FINGERPRINT},{OTHER.fingerprint.upper()}", True),
        (digest, digest, OTHER.fingerprint.upper(), True),
    ):
        said = {
            "/var/lib/shipway/apt-docker.accepted": f"{noted} {fingerprints} 0\n",
            LIST: f"deb [signed-by={KEYRING}] https://mirror.example.com /\n",
        }
        looks = {"stat": f"644|root:root|1|regular file|{KEYRING}\n", "sha256sum": f"{have}  {KEYRING}\n"}

        def answer(line: Line, said: dict[str, str] = said, looks: dict[str, str] = looks) -> Output:
            known = said.get(line.words[-1], "") if line.words[0] == "cat" else looks.get(line.words[0], "")
            return Output(0, known, "")

        found = await repository().check(Host("w1", AnsweringShell(answer)))
        assert (found is not None) is drifts, (have, fingerprints, found)
    with pytest.raises(ShipwayError):
        await repository("0" * 40).apply(Host("w1", serving(str(PINNED).encode())))
