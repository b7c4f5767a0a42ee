"""The commands that README.md begins with, as an unprivileged user with a clean clone on fresh Debian systems.

Each system is a chroot of its own with python3, python3-venv, make and what these need, and nothing else. What is
asked of registries goes where this machine's pip and apt go. It uses the standard library only: no virtual environment
that is here can help it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("bookworm", "trixie")  # Debian 12 with Python 3.11.2, Debian 13 with 3.13
PACKAGES = ("python3", "python3-venv", "make")
USER = 1234  # nobody's number: what it may do is what everybody may
DAYS = 14.0  # after which a chroot is made anew, with the distribution's newest packages
THEN = "make test-long"  # what CI wants of a fresh system besides, and a newcomer need not wait for
SECONDS = {"make bootstrap": 1500.0, "make test": 3600.0, THEN: 3600.0}
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# The host's /dev is used for its pseudo-terminals; everything that is mounted is gone with the process's namespace.
INSIDE = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
chmod 1777 "$1/tmp"
exec chroot --userspec="$2:$2" "$1" /usr/bin/env -i HOME=/home/user USER=user PATH=/usr/bin:/bin LANG=C.UTF-8 \
  SHIPWAY_NOT_RUN=/home/user/not-run $4 \
  sh -c "cd /home/user/shipway && exec $3"
"""


def commands() -> list[str]:
    """Return the commands of the first block of README.md, without their comments."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```", 2)[1]
    return [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("make ")]


def run(*words: str | Path, **more: str) -> str:
    """Run a command of this machine; returns what it printed, raises CalledProcessError."""
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **more})
    return ran.stdout


def cache() -> Path:
    """Return the folder that chroots are kept in, made where it is not there."""
    kept = os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway"
    folder = Path(kept).absolute() / "fresh"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mirror() -> list[str]:
    """Return the Debian archive that this machine's apt uses; none where there is none: then mmdebstrap's."""
    if shutil.which("apt-get") is None:
        return []
    form = "$(LABEL)\t$(REPO_URI)"
    lines = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()
    return [line.partition("\t")[2] for line in lines if line.startswith("Debian\t")][:1]


def archive(suite: str) -> Path:
    """Return the packed chroot of a suite: kept from an earlier call, or made now."""
    path = cache() / f"{suite}-{'-'.join(PACKAGES)}.tar"
    if path.exists() and time.time() - path.stat().st_mtime < DAYS * 86400:
        return path
    new = path.with_suffix(f".{os.getpid()}.tar")
    try:
        options = ["--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--dpkgopt=force-unsafe-io"]
        run("mmdebstrap", *options, suite, new, *mirror())
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)
    return path


def pip_settings(place: Path) -> None:
    """Write this machine's pip settings into a chroot, with the certificates that they name."""
    written = []
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, quoted = line.partition("=")
        name, value = key.rpartition(".")[2], quoted.strip("'\"").replace("\\n", " ")
        if name in {"cert", "client-cert"} and Path(value).is_file():
            inside = Path("/etc") / f"pip-{name}.pem"
            shutil.copyfile(value, place / inside.relative_to("/"))
            written.append(f"{name} = {inside}")
        elif name in {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries"}:
            remote = [word for word in value.split() if not word.startswith("file:")]
            written += [f"{name} = {' '.join(remote)}"] if remote else []
    text = "[global]\n" + "".join(f"{line}\n" for line in dict.fromkeys(written))
    (place / "etc" / "pip.conf").write_text(text, encoding="utf-8")


@contextmanager
def system(suite: str) -> Iterator[Path]:
    """Unpack a system with a user and a clean clone in the user's home; it is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix=f"shipway-fresh-{suite}-"))
    try:
        place.chmod(0o755)
        run("tar", "-C", place, "--numeric-owner", "-xf", archive(suite), "--exclude=./dev/*")
        for name in ("resolv.conf", "hosts"):
            shutil.copyfile(Path("/etc") / name, place / "etc" / name)
        with (place / "etc" / "passwd").open("a", encoding="utf-8") as passwd:
            passwd.write(f"user:x:{USER}:{USER}::/home/user:/bin/sh\n")
        with (place / "etc" / "group").open("a", encoding="utf-8") as group:
            group.write(f"user:x:{USER}:\n")
        pip_settings(place)
        home = place / "home" / "user"
        home.mkdir()
        run("git", "clone", "--quiet", "--no-hardlinks", ROOT, home / "shipway")
        run("chown", "-R", f"{USER}:{USER}", home)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def type_in(place: Path, command: str, output: IO[str] | None) -> int:
    """Run a command as the user; returns its exit status, 124 where it took too long. `output` None is our own."""
    given = " ".join(shlex.quote(f"{name}={os.environ[name]}") for name in PROXIES if os.environ.get(name))
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE.replace("$4", given)]
    words += ["sh", str(place), str(USER), command]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        try:
            return process.wait(SECONDS.get(command, 900.0))
        except subprocess.TimeoutExpired:
            process.kill()
            return 124


def try_in(suite: str, asked: argparse.Namespace) -> tuple[list[str], bool]:
    """Run the commands in a fresh system; returns how each ended, and whether all ended well.

    The system that more than the first runs in prints at once, any other, beside it, when it is done.
    """
    first, *others = [*commands(), THEN]
    heard, good, began = [], True, time.monotonic()
    with system(suite) as place, tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        heard.append(f"{suite}: a fresh system in {time.monotonic() - began:.0f} s")
        output = None if suite == asked.all_in else kept
        for command in (first, *(others if suite == asked.all_in else ())):
            print(f"== {suite}: {command}", flush=True)
            began = time.monotonic()
            status = type_in(place, command, output)
            heard.append(f"{suite}: {command}: exit status {status} in {time.monotonic() - began:.0f} s")
            kept.seek(0)
            print(kept.read() + heard[-1], flush=True)
            kept.seek(0)
            kept.truncate()
            good = good and status == 0
        skipped = place / "home" / "user" / "not-run"
        if asked.not_run and skipped.exists():
            asked.not_run.write_text(skipped.read_text(encoding="utf-8"), encoding="utf-8")
    return heard, good


def main(arguments: list[str] | None = None) -> int:
    """Run the first command everywhere at once, the others in one system; returns 0 where all ended well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fresh", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this system (may be repeated)")
    parser.add_argument(
        "--all-in", default=SUITES[-1], choices=(*SUITES, "none"), help="where more than the first runs"
    )
    parser.add_argument(
        "--not-run", type=Path, metavar="FILE", help="where to leave the names of tests that were skipped"
    )
    asked = parser.parse_args(arguments)
    lacking = [name for name in ("mmdebstrap", "unshare", "git") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        print(f"make test-fresh needs root{' and ' + ', '.join(lacking) if lacking else ''}", file=sys.stderr)
        return 1
    suites = asked.suite or SUITES
    with ThreadPoolExecutor(len(suites)) as together:  # pip fetches in one while the other installs
        ends = list(together.map(lambda suite: try_in(suite, asked), suites))
    print("\n".join(("== on fresh systems", *(line for heard, _ in ends for line in heard))))
    return 0 if all(good for _, good in ends) else 1


if __name__ == "__main__":
    sys.exit(main())
