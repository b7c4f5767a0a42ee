"""Build the kernels of the probe: probe.cu into probe.ptx, by CUDA's nvcc (`python -m tools.probe_ptx`).

Two things of it are ours: PTX for compute capability 8.0, which every later GPU's driver makes its own machine code of,
and the oldest PTX version that this code is valid in, so that a driver older than the compiler takes it (PTX ISA,
"Release Notes": 7.0 came with CUDA 11.0). ptxas says whether it is valid.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "shipway/gpu/figures"
SOURCE, BUILT = FOLDER / "probe.cu", FOLDER / "probe.ptx"
TARGET, VERSION = "80", "7.0"


def build() -> str:
    """Return the kernels as PTX. Raises CalledProcessError where nvcc or ptxas refuses, OSError where it is missing."""
    with tempfile.TemporaryDirectory() as folder:
        made, checked = Path(folder) / "probe.ptx", Path(folder) / "probe.cubin"
        subprocess.run(
            ["nvcc", "-std=c++17", "-ptx", f"-arch=compute_{TARGET}", "-o", str(made), str(SOURCE)], check=True
        )
        text = re.sub(r"^\.version .*$", f".version {VERSION}", made.read_text(), count=1, flags=re.MULTILINE)
        made.write_text(text)
        subprocess.run(["ptxas", f"-arch=sm_{TARGET}", "-o", str(checked), str(made)], check=True)
    return text


if __name__ == "__main__":
    BUILT.write_text(build())
    print(f"{BUILT} is built")
    sys.exit(0)
