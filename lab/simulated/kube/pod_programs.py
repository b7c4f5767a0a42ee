"""What the containers of verification pods run: a script of known commands, computed from the GPUs they see.

There is no shell here. A script is a row of commands with `; ` between them, as the GPU proof sends it; a script with
anything else in it ends with status 2 and says what is not simulated. Time inside is counted, not waited for: the
result says which line is written how many seconds after the start, and when the command ends.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.gpu_figures import SECONDS, Scene, write_figures, write_rank
from shipway.gpu.measuring import IN_POD
from shipway.steps.upgrade.proof import REACH

GPU_NAME = "NVIDIA A10"
DEVICE_NODES = "/dev/nvidia*"  # the one pattern that a script may hold
_SYNTAX = re.compile(r"[|&<>(){}`\n]")
_VARIABLE = re.compile(r"\$(\w+|\?)")
# What the proof of one host begins with: whether DNS and the API answer its pods, which they do here.
_ASKS, _TOLD = REACH.partition("{name}")[0], REACH.splitlines(keepends=True)[-1]
Result = tuple[int, str, float]  # exit code, output, seconds taken


class NotSimulatedError(Exception):
    """A command that is not simulated."""


@dataclass
class Program:
    """What a container does: lines with their offset in seconds, and when and how it ends (`ends` None: never)."""

    lines: list[tuple[float, str]] = field(default_factory=list)
    ends: float | None = None
    code: int = 0


@dataclass
class Machine:
    """What a container sees: its environment, its host name, and the GPUs (UUIDs) its runtime shows it.

    `nvidia` False: no nvidia runtime, and so not even the nvidia-smi program, which that runtime mounts.
    """

    env: dict[str, str] = field(default_factory=dict)
    hostname: str = ""
    nvidia: bool = False
    gpus: list[str] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)  # of MIG: the GPU of each
    figures: Scene = field(default_factory=Scene)


def _echo(machine: Machine, words: list[str]) -> Result:
    nodes = " ".join(f"/dev/nvidia{at}" for at in range(len(machine.gpus)))
    shown = [nodes if word == DEVICE_NODES and nodes else word for word in words]
    return 0, " ".join(shown) + "\n", 0.0


def _sleep(machine: Machine, words: list[str]) -> Result:  # noqa: ARG001 - the shape of a program
    if not words or not re.fullmatch(r"\d+|infinity", words[0]):
        raise NotSimulatedError
    return 0, "", float(words[0])


def _true(machine: Machine, words: list[str]) -> Result:  # noqa: ARG001
    return 0, "", 0.0


def _nvidia_smi(machine: Machine, words: list[str]) -> Result:
    if words != ["-L"]:
        raise NotSimulatedError
    if not machine.nvidia:
        return 127, "sh: 1: nvidia-smi: not found", 0.0
    if not machine.gpus:
        return 6, "No devices were found", 0.1
    rows = []
    for at, uuid in enumerate(machine.gpus):
        rows.append(f"GPU {at}: {GPU_NAME} (UUID: {machine.parts.get(uuid, uuid)})")
        rows += [f"  MIG 1g.18gb     Device  0: (UUID: {uuid})"] if uuid in machine.parts else []
    return 0, "\n".join(rows), 0.1


def _vector_add(machine: Machine, words: list[str]) -> Result:  # noqa: ARG001
    head = "[Vector addition of 50000 elements]\n"
    if machine.gpus:
        return 0, f"{head}CUDA kernel launch with 196 blocks of 256 threads\nTest PASSED\nDone", 1.0
    why = (
        "no CUDA-capable device is detected"
        if machine.nvidia
        else "CUDA driver version is insufficient for CUDA runtime version"
    )
    return 1, f"{head}Failed to allocate device vector A (error code {why})!", 0.5


PROGRAMS: dict[str, Callable[[Machine, list[str]], Result]] = {
    "echo": _echo,
    "sleep": _sleep,
    "true": _true,
    "nvidia-smi": _nvidia_smi,
    "/cuda-samples/vectorAdd": _vector_add,
}


def run_words(words: list[str], machine: Machine) -> Program | None:
    """Return what a command given as words does; None for a program that the simulation does not know."""
    if words[:3] == ["sh", "-c", IN_POD]:
        options = dict(word.partition("=")[::2] for word in words[5:])
        if "ranks" in options:
            return Program([(1.0, line) for line in write_rank(options, machine.figures).splitlines()])
        said = write_figures(machine.gpus, machine.figures, where="pod")
        return Program([(SECONDS, line) for line in said.splitlines()])
    if words[:2] == ["sh", "-c"] and len(words) == 3:
        return run_script(words[2], machine)
    return run_script(shlex.join(words), machine) if words[0] in PROGRAMS else None


def run_script(script: str, machine: Machine) -> Program:
    """Return what `sh -c script` does on this machine."""
    lines: list[tuple[float, str]] = []
    clock, code = 0.0, 0
    if script.startswith(_ASKS) and _TOLD in script:
        script = script.partition(_TOLD)[2]
        lines.append((clock, "DNS answers, API answers"))
    for command in script.split("; "):
        if command.startswith("exit "):
            return Program(lines, clock, int(command.removeprefix("exit ")))
        try:
            code, text, seconds = _run(command, machine, code)
        except NotSimulatedError:
            known = ", ".join(PROGRAMS)
            said = f"SIMULATED pod: `{command}` is not simulated; known are {known}, and `; ` between them"
            return Program([*lines, (clock, said)], clock, 2)
        lines += [(clock, line) for line in text.splitlines()]
        clock += seconds
    return Program(lines, None if clock == math.inf else clock, code)


def _run(command: str, machine: Machine, last: int) -> Result:
    """Return what one command does; `last` is the exit status of the one before. Raises NotSimulatedError."""
    env = {**machine.env, "?": str(last)}
    words = shlex.split(_VARIABLE.sub(lambda found: env.get(found[1], ""), command))
    if not words or _SYNTAX.search(command) or words[0] not in PROGRAMS:
        raise NotSimulatedError
    return PROGRAMS[words[0]](machine, words[1:])
