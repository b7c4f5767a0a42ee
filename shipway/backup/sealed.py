"""Copies of a backup that only a key's owner can read: each file passes through age, never in clear on this disk.

age's format is that of age-encryption.org; pyrage is its library, an extra that only this module imports. What tells
backups apart, `manifest.json` and `verified`, stays in clear: neither has a secret.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from shipway.errors import Permanent, Refused
from shipway.foreign.errors import describe_error

SUFFIX = ".age"
IDENTITY = "SHIPWAY_AGE_IDENTITY"  # names the file with the private key, as age-keygen writes it
Write = Callable[[bytes], object]


def age() -> Any:
    """Return age's library; raises Refused SHW-755 where it is not installed."""
    try:
        import pyrage  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "copies of backups are encrypted by age, and its library pyrage is not installed on this machine"
        fix = "`pip install 'shipway[age]'` into the environment that runs Shipway, then run again."
        raise Refused(message, code="SHW-755", fix=fix) from error
    return pyrage


@contextlib.contextmanager
def sealing(file: IO[bytes], recipients: Sequence[str]) -> Iterator[Write]:
    """Yield what takes the parts of a text that is written encrypted; it is whole when this ends. Raises OSError."""
    library = age()
    keys = [library.x25519.Recipient.from_str(one) for one in recipients]
    with _worker(lambda source: library.encrypt_io(source, file, keys)) as write:
        yield write


@contextlib.contextmanager
def _worker(work: Callable[[IO[bytes]], object]) -> Iterator[Write]:
    """Yield what writes into a pipe that a thread reads from; raises as OSError what ended that."""
    source, sink = os.pipe()
    failed: list[BaseException] = []

    def run() -> None:
        with os.fdopen(source, "rb") as opened:
            try:
                work(opened)
            except BaseException as error:  # noqa: BLE001 - raised where the file is written
                failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with contextlib.suppress(BrokenPipeError), os.fdopen(sink, "wb") as opened:
            yield opened.write
    finally:
        thread.join()
    if failed:
        raise failed[0] if isinstance(failed[0], OSError) else OSError(f"age: {failed[0]}")


def kept_as(folder: Path, path: str) -> Path:
    """Return the file in which a file of a kept backup lies: encrypted, where only that is there."""
    plain = folder / path
    sealed = plain.with_name(f"{plain.name}{SUFFIX}")
    return sealed if not plain.exists() and sealed.exists() else plain


def parts_of(file: Path, size: int) -> Iterator[bytes]:
    """Yield a file's text in parts of at most so many bytes, decrypted where it is encrypted; an empty one gives one.

    Raises OSError, Refused SHW-756 without a private key, and Permanent SHW-757 where that one does not open it.
    """
    if file.suffix != SUFFIX:
        with file.open("rb") as opened:
            yield opened.read(size)
            while data := opened.read(size):
                yield data
        return
    library, source, sink, failed = age(), *os.pipe(), list[BaseException]()
    keys = identities()

    def run() -> None:
        with file.open("rb") as sealed, os.fdopen(sink, "wb") as to:
            try:
                library.decrypt_io(sealed, to, keys)
            except BaseException as error:  # noqa: BLE001 - raised where the text is read
                failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with os.fdopen(source, "rb") as plain:
        data = plain.read(size)
        while more := plain.read(size):
            yield data
            data = more
    thread.join()
    if failed:
        fix = f"Let {IDENTITY} name the file with the key of one of those that `backup.encrypt_to` named at that time."
        raise Permanent(f"{file} cannot be decrypted: {failed[0]}", code="SHW-757", fix=fix)
    yield data


def identities() -> list[Any]:
    """Return the private keys of the file that the environment names; raises Refused SHW-756, without a word of it."""
    fix = f"Set {IDENTITY} to the file with the private key (of `age-keygen`, mode 600), then run again."
    named, library = os.environ.get(IDENTITY), age()
    if not named:
        raise Refused("the copy of the backup is encrypted, and no private key was named", code="SHW-756", fix=fix)
    try:
        lines = Path(named).expanduser().read_text(encoding="utf-8").split("\n")
        keys = [library.x25519.Identity.from_str(one.strip()) for one in lines if one.startswith("AGE-SECRET-KEY-1")]
    except OSError as error:
        message = f"the private key cannot be read ({named}): {describe_error(error)}"
        raise Refused(message, code="SHW-756", fix=fix) from error
    except (UnicodeDecodeError, library.IdentityError):
        keys = []  # what the library says may quote the key
    if not keys:
        raise Refused(f"{named} holds no private key of age", code="SHW-756", fix=fix)
    return keys
