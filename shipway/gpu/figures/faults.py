"""What a bad figure means, its code, and what is to be done."""

from __future__ import annotations

from shipway.gpu.figures.model import LINKS, UNITS

_SLOW = (
    "a GPU is slower than its equals, than itself before, or than is known of its product",
    "SHW-630",
    (
        "Compare its clocks, power, slot and cooling with an equal's, measure again, have one replaced that stays slow;"
        " where no GPU of its product reaches more on these machines, say so in `gpu.figures.least`."
    ),
)
_NARROW = (
    "a GPU has fewer links, or slower ones, than its equals",
    "SHW-636",
    "Drain the node; reseat the GPU, look at its riser, cable or bridge; then `shipway verify FILE --level full`.",
)
# By figure: what it means, code, next step.
FAULTS: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(UNITS, _SLOW),
    **dict.fromkeys(LINKS, _NARROW),
    "checksum": (
        "a GPU computes falsely and tells nobody",
        "SHW-631",
        "Cordon the node at once: what this GPU computed may be wrong. Have it replaced, and measure the new one.",
    ),
    "clocks": (
        "a GPU's clocks are held down under load by heat or by a lack of power",
        "SHW-632",
        "See to airflow, power supply and cables, then `shipway verify FILE --level full` again.",
    ),
    "memory errors": (
        "a GPU's memories counted errors that were not corrected, or gave up rows, while it worked",
        "SHW-640",
        (
            "Drain the node; restart the host, so that rows are replaced, then `shipway verify FILE --level full`; have"
            " a GPU replaced that counts them again."
        ),
    ),
    "answer": (
        "a GPU gave no figures",
        "SHW-633",
        "See the kernel's log on the host; drain the node and restart it, then `shipway verify FILE --level full`.",
    ),
    "pod against host": (
        "a GPU is slower in a pod than on its host",
        "SHW-634",
        "See the limits of processors and memory that pods get there (cpuManagerPolicy, cpusets), then measure again.",
    ),
    "burn": (
        "NVIDIA's diagnosis fails a GPU",
        "SHW-637",
        "Drain the node; `dcgmi diag -r 3` on the host has the whole of it, and its own advice.",
    ),
    "all-reduce": (
        "the GPUs of a host are slow together, or their sum is wrong",
        "SHW-635",
        "See the links between its GPUs and who manages their switches, then `shipway verify FILE --level full` again.",
    ),
    "across hosts": (
        "a rail, a host, a path or what joins blocks of hosts slows collectives down, or lets none through",
        "SHW-645",
        "See that host's network card, cable and switch port (of a path: what lies between); then measure again.",
    ),
}
