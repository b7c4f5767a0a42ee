"""Running programs of this machine: words in, text out, and an error that says who, what, why and what next."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TAIL_LINES = 12


class LabError(Exception):
    """Something of the lab failed; the text says what, why and the next step."""


def run(
    *words: str | Path,
    give: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 300,
    expect: tuple[int, ...] = (0,),
) -> str:
    """Return the standard output of one program, without trailing newline.

    `give` is its standard input, `env` is added to this process's environment, `seconds` its limit and `expect` the
    exit codes that count as success. Raises LabError with the end of its output otherwise.
    """
    command = [str(word) for word in words]
    shown = " ".join(command[:8])
    data = give.encode() if isinstance(give, str) else give
    try:
        done = subprocess.run(
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"{command[0]} is not installed on this machine; run `python -m lab.containers doctor`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shown}` did not end within {seconds:.0f} s; last output: {_tail(error.stderr)}") from error
    if done.returncode not in expect:
        output = _tail(done.stderr) or _tail(done.stdout)
        raise LabError(f"`{shown}` ended with exit code {done.returncode}:\n{output}")
    return done.stdout.decode(errors="replace").rstrip("\n")


def _tail(output: bytes | None) -> str:
    lines = (output or b"").decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def wait_until(sentence: str, look: Callable[[], str | None], *, seconds: float, every: float = 0.25) -> None:
    """Look every `every` seconds until `look` gives None (it is so); its text is the last thing seen.

    Raises LabError after `seconds`, with the sentence and the last thing seen.
    """
    limit = time.monotonic() + seconds
    while (seen := look()) is not None:
        if time.monotonic() > limit:
            raise LabError(f"waited {seconds:.0f} s for: {sentence}. Last seen: {seen}")
        time.sleep(every)


def spawn_daemon(words: list[str], log: Path, env: Mapping[str, str]) -> int:
    """Start a program that outlives this one, in a session of its own, both outputs to `log`; return its process id.

    `subprocess` would warn of a child that is still there when this process ends, and this one is meant to be.
    """
    opened = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    outputs = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, log, opened, 0o644)]
    actions = [*outputs, (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawnp(words[0], words, {**os.environ, **env}, file_actions=actions, setsid=True)


def read_if_there(path: Path) -> str | None:
    """Return a file's text, None where it is not there: a process, a cgroup or what wrote it may end at any moment."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # a cgroup that was removed while it was read
            return None
        raise


def end(process: int, signal: int) -> None:
    """Send a process a signal; one that has ended by itself needs none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal)


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(text, flush=True)
