"""Set up the virtual environment that `make` runs everything in: create it, install the lock, check that it is whole.

It runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path

from flows.cli.ticker import Ticker

SHOWN = 20  # lines of pip's output after a failure
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_VENV = f"""\
{sys.executable} cannot create a virtual environment.
Next: install its venv module (Debian, Ubuntu: apt-get install python3-venv), then run the same command again."""
NOT_WHOLE = """\
The packages in {folder} are not a whole set for Python {version}: see above.
Next: remove the folder (make clean) and run the same command again; if it says the same, requirements.lock does not fit
this Python: `make lock` resolves it anew."""


def fits(python: Path) -> bool:
    """Return whether this environment runs the Python that was asked for, and has a pip that starts."""
    code = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return ran.returncode == 0 and ran.stdout.strip() == VERSION


def install(python: Path, lock: Path, ticker: Ticker) -> str:
    """Install what the lock names for this Python, by hash. Returns "" or the end of pip's output."""
    # --no-deps: the lock is complete, so nothing is left for pip's resolver to decide. --no-compile: what a run imports
    # is compiled as it is imported, and most of what the tools bring is never imported (half a minute less).
    words = [
        "--no-deps",
        "--require-hashes",
        "--progress-bar",
        "off",
        "--no-compile",
        "--disable-pip-version-check",
        "-r",
        str(lock),
    ]
    command = [str(python), "-m", "pip", "install", *words]
    seen, last = 0, deque[str](maxlen=SHOWN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            last.append(line.rstrip())
            if line.startswith("Collecting "):
                seen += 1
                ticker.text = f"  package {seen}: {line.split()[1]}"
            elif line.startswith("Installing "):
                ticker.text = f"  unpacking {seen} packages"
    return "\n".join(last) if pip.returncode else ""


def main(folder: Path, lock: Path) -> int:
    """Set up `folder` from `lock`; returns the exit status."""
    python = folder / "bin" / "python"
    print(f"Setting up {folder} for Python {VERSION} from {lock} (once; a minute or two) ...", flush=True)
    with Ticker("  creating the virtual environment") as ticker:
        if (
            not fits(python)
            and subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=False).returncode
        ):
            print(NO_VENV, file=sys.stderr)
            return 1
        ticker.text = "  starting pip"
        if said := install(python, lock, ticker):
            print(f"{said}\nInstalling the packages of {lock} failed: see above.", file=sys.stderr)
            return 1
        ticker.text = "  checking the installed set"
        checked = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        print(checked.stdout + checked.stderr + NOT_WHOLE.format(folder=folder, version=VERSION), file=sys.stderr)
        return 1
    for old in folder.glob(".ready*"):
        old.unlink()
    (folder / f".ready-{VERSION}").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
