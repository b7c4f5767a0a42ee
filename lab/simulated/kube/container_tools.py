"""The tools inside a simulated container: echo, sleep, test, text filters, and nvidia-smi over the GPUs it sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

FOREVER = 1e9  # seconds
CARD_NAME, DRIVER = "NVIDIA A10", "550.163.01"
Result = tuple[int, str, float]  # exit code, output, seconds taken


@dataclass
class Machine:
    """What a container sees: its environment, its host name, and the GPUs (UUIDs) its runtime shows it.

    `nvidia` False: no nvidia runtime, and so not even the nvidia-smi program, which that runtime mounts.
    """

    env: dict[str, str] = field(default_factory=dict)
    hostname: str = ""
    nvidia: bool = False
    cards: list[str] = field(default_factory=list)


Tool = Callable[[Machine, list[str], str], Result]


def _echo(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001 - the shape of a tool
    while words and words[0] in {"-n", "-e", "-ne", "-en"}:
        words = words[1:]
    nodes = [f"/dev/nvidia{at}" for at in range(len(machine.cards))]  # what the shell finds for the pattern
    found = [name for word in words for name in (nodes if word == "/dev/nvidia*" and nodes else [word])]
    return 0, " ".join(found) + "\n", 0.0


def _printf(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    pattern = (words or [""])[0].replace("\\n", "\n").replace("\\t", "\t")
    values = iter(words[1:])
    return 0, re.sub(r"%[sd]", lambda _: next(values, ""), pattern), 0.0


def _sleep(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    if not words:
        return 1, "sleep: missing operand\n", 0.0
    if words[0] in {"inf", "infinity"}:
        return 0, "", FOREVER
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([smhd]?)", words[0])
    if found is None:
        return 1, f"sleep: invalid time interval '{words[0]}'\n", 0.0
    return 0, "", float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _compare(left: str, operator: str, right: str) -> Result:
    if operator in {"=", "==", "!="}:
        return int((left == right) != (operator != "!=")), "", 0.0
    numbers = {"-eq": int.__eq__, "-ne": int.__ne__, "-gt": int.__gt__, "-ge": int.__ge__, "-lt": int.__lt__}
    try:
        return int(not numbers.get(operator, int.__le__)(int(left), int(right))), "", 0.0
    except ValueError:
        return 2, f"sh: 1: [: Illegal number: {left}\n", 0.0


def _test(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    words = words[:-1] if words[-1:] == ["]"] else words
    if words[:1] == ["!"]:
        return int(_test(machine, words[1:], "")[0] == 0), "", 0.0
    if len(words) == 3:
        return _compare(*words)
    if len(words) == 2 and words[0] in {"-e", "-f", "-c", "-d"}:
        device = re.fullmatch(r"/dev/nvidia(\d+)", words[1])
        return int(not (machine.nvidia and device and int(device[1]) < len(machine.cards))), "", 0.0
    if len(words) == 2:
        return int(bool(words[1]) != (words[0] == "-n")), "", 0.0
    return int(not (words and words[0])), "", 0.0


def _nvidia_smi(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    if not machine.nvidia:
        return 127, "sh: 1: nvidia-smi: not found\n", 0.0
    if not machine.cards:
        return 6, "No devices were found\n", 0.1
    query = next((word.split("=", 1)[1] for word in words if word.startswith("--query-gpu=")), "")
    if query:
        header = "" if any("noheader" in word for word in words) else query.replace(",", ", ") + "\n"
        return 0, header + "".join(_card_row(query, at, uuid) for at, uuid in enumerate(machine.cards)), 0.1
    if "-L" in words or "--list-gpus" in words:
        rows = [f"GPU {at}: {CARD_NAME} (UUID: {uuid})\n" for at, uuid in enumerate(machine.cards)]
        return 0, "".join(rows), 0.1
    names = "".join(f"|   {at}  {CARD_NAME}   On   |\n" for at in range(len(machine.cards)))
    return 0, f"| NVIDIA-SMI {DRIVER}   Driver Version: {DRIVER}   SIMULATED |\n{names}", 0.1


def _card_row(query: str, at: int, uuid: str) -> str:
    known = {
        "index": str(at), "uuid": uuid, "gpu_uuid": uuid, "name": CARD_NAME, "gpu_name": CARD_NAME,
        "driver_version": DRIVER, "memory.total": "23028 MiB", "count": "1",
    }  # fmt: skip
    return ", ".join(known.get(part.strip(), "[Not Supported]") for part in query.split(",")) + "\n"


def _vector_add(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    head = "[Vector addition of 50000 elements]\n"
    if not machine.cards:
        why = (
            "no CUDA-capable device is detected"
            if machine.nvidia
            else "CUDA driver version is insufficient for CUDA runtime version"
        )
        return 1, f"{head}Failed to allocate device vector A (error code {why})!\n", 0.5
    steps = [
        "Copy input data from the host memory to the CUDA device",
        "CUDA kernel launch with 196 blocks of 256 threads",
        "Copy output data from the CUDA device to the host memory",
        "Test PASSED",
        "Done",
    ]
    return 0, head + "\n".join(steps) + "\n", 1.0


def _filter(work: Callable[[list[str], list[str]], tuple[int, list[str]]]) -> Tool:
    def tool(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
        code, lines = work(words, given.splitlines())
        return code, "".join(f"{line}\n" for line in lines), 0.0

    return tool


def _grep(words: list[str], lines: list[str]) -> tuple[int, list[str]]:
    flags = "".join(word[1:] for word in words if word.startswith("-"))
    pattern = next((word for word in words if not word.startswith("-")), "")
    found = [line for line in lines if bool(re.search(pattern, line)) != ("v" in flags)]
    shown = [str(len(found))] if "c" in flags else [] if "q" in flags else found
    return int(not found), shown


def _count(words: list[str], default: int) -> int:
    digits = re.findall(r"\d+", " ".join(words))
    return int(digits[0]) if digits else default


def _always(code: int, seconds: float = 0.0) -> Tool:
    def tool(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
        return code, "", seconds

    return tool


def _hostname(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    return 0, f"{machine.hostname}\n", 0.0


def _env(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    return 0, "".join(f"{name}={value}\n" for name, value in machine.env.items() if name.isidentifier()), 0.0


def _set(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    if any(word.startswith("-") and "e" in word for word in words):
        machine.env["-e"] = "1"
    return 0, "", 0.0


def _export(machine: Machine, words: list[str], given: str) -> Result:  # noqa: ARG001
    for word in words:
        name, found, value = word.partition("=")
        if found:
            machine.env[name] = value
    return 0, "", 0.0


TOOLS: dict[str, Tool] = {
    "echo": _echo,
    "printf": _printf,
    "sleep": _sleep,
    "pause": _always(0, FOREVER),
    "true": _always(0),
    ":": _always(0),
    "trap": _always(0),
    "false": _always(1),
    "hostname": _hostname,
    "env": _env,
    "test": _test,
    "[": _test,
    "nvidia-smi": _nvidia_smi,
    "vectorAdd": _vector_add,
    "cat": _filter(lambda words, lines: (0, lines)),  # noqa: ARG005
    "sort": _filter(lambda words, lines: (0, sorted(set(lines) if "-u" in words else lines))),
    "uniq": _filter(lambda words, lines: (0, list(dict.fromkeys(lines)))),  # noqa: ARG005
    "wc": _filter(lambda words, lines: (0, [str(len(lines))])),  # noqa: ARG005
    "grep": _filter(_grep),
    "head": _filter(lambda words, lines: (0, lines[: _count(words, 10)])),
    "set": _set,
    "export": _export,
    "tail": _filter(lambda words, lines: (0, lines[-_count(words, 10) :])),
}
