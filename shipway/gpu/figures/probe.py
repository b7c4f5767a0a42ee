"""Measure each NVIDIA GPU of this machine, or of this pod, and print a line of JSON for each: the full proof's program.

It needs Python 3.8, the driver's libcuda and libnvidia-ml, for a collective libnccl, for the library's product
libcublas; nothing is installed and no setting of a GPU is changed. Shipway sends it as text, with the kernels in `PTX`,
to the Python of a host or a pod (shipway.gpu.figures.program).

    python3 probe.py [seconds=5] [collective=BYTES] [only=0,1,... ranks=N rank=R [id=HEX]]

Each GPU has a process of its own, and all of them begin together: what only shows under full load, as power and heat
do, shows so. Those slower than their equals here are measured once more, alone. Lines are objects with a key `kind`:

    gpu         number, uuid, name, serial, bus, driver, kernel, power_limit (W), matmul and library_matmul (TFLOP/s; of
                the kernel here and of cuBLAS), copy, to_gpu, from_gpu (GB/s), checksum, exact (the product's bits are
                right), began (seconds since 1970), ecc_errors and remapped_rows (how many more uncorrectable errors of
                its memories, and rows replaced or to be, than before the load),
                reasons (what held the clocks down under load, NVML's bits), nvlinks (active ones) and what else
                NVML told; `no_product`, `no_library`: why there is none; `alone`: the figures alone
    collective  gpus, bytes, algorithm, bandwidth (GB/s, bus bandwidth of an all-reduce), right, via and network (by
                what NCCL says that it goes)
    id          id: what the other ranks are to be given (rank 0 alone prints it, before it waits for them)
    fault       of (a GPU's number, "collective" or "probe"), why: nothing can be said of that; `missing` where it is
                only that a library is not there
"""

from __future__ import annotations

import base64
import ctypes
import glob
import json
import os
import platform
import re
import select
import signal
import statistics
import sys
import time
import zlib
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

Line = Dict[str, Any]
Ready = Callable[[], None]
PTX = ""  # the kernels, packed: shipway.gpu.figures.program fills it

SIZE = 8192  # rows and columns of the product
RIGHT = 0x1BC30882FB2871FC  # checksum of the right product of that size: by numpy in exact arithmetic, and of two H200
MEMORY = 4 << 30  # bytes copied in the GPU's memory
PINNED = 256 << 20  # bytes copied between the host's memory and the GPU's
SLOW = 0.95  # of the median of its equals: below it a GPU is measured again, alone
PATIENCE = 60  # seconds that what is no measuring may take: the driver's start, the kernels' translation
LATE = "no answer in time: the driver hangs"
STAGE = 49152  # bytes of shared memory that a stage of the product's pipeline takes (probe.cu: STAGE_BYTES)


class Failed(Exception):
    """A call of the driver failed; the text says which and why."""


class Missing(Failed):
    """A library is not there."""


class Driver:
    """The calls of libcuda, each checked."""

    def __init__(self) -> None:
        """Load and initialise it. Raises Missing where it is not there, Failed where it tells of no GPU."""
        self.library: Any = load("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver. Raises Failed with its name and the driver's word."""
        status = getattr(self.library, name)(*arguments)
        if status:
            word = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(word))
            raise Failed("%s: %s (%d)" % (name, (word.value or b"unknown").decode(), status))

    def count(self) -> int:
        """Return how many GPUs this process may use."""
        number = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(number))
        return number.value


class Gpu:
    """One GPU with a context of this process, and what is measured on it."""

    def __init__(self, driver: Driver, number: int) -> None:
        """Take GPU `number` into use. Raises Failed."""
        self.driver, self.number = driver, number
        self.device, context = ctypes.c_int(), ctypes.c_void_p()
        driver.call("cuDeviceGet", ctypes.byref(self.device), number)
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.context = context
        self.use()
        name, uuid, bus = ctypes.create_string_buffer(96), (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(32)
        driver.call("cuDeviceGetName", name, 96, self.device)
        driver.call("cuDeviceGetUuid", uuid, self.device)
        driver.call("cuDeviceGetPCIBusId", bus, 32, self.device)
        digits = bytes(uuid).hex()
        self.name, self.bus = name.value.decode(), bus.value.decode().lower()
        self.uuid = "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def use(self) -> None:
        """Make its context the current one of this thread."""
        self.driver.call("cuCtxSetCurrent", self.context)

    def attribute(self, which: int) -> int:
        """Return a number that the driver tells of it (cuda.h, CUdevice_attribute)."""
        value = ctypes.c_int()
        self.driver.call("cuDeviceGetAttribute", ctypes.byref(value), which, self.device)
        return value.value

    def memory(self, size: int) -> ctypes.c_uint64:
        """Return the address of `size` bytes of its memory."""
        address = ctypes.c_uint64()
        self.driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address

    def free(self, address: ctypes.c_uint64) -> None:
        """Free memory that was taken."""
        self.driver.call("cuMemFree_v2", address)

    def free_bytes(self) -> int:
        """Return how many bytes of its memory are free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def wait(self) -> None:
        """Wait until everything begun on it has ended."""
        self.driver.call("cuCtxSynchronize")

    def load(self, ptx: bytes) -> None:
        """Hand it the kernels."""
        self.module = ctypes.c_void_p()
        self.driver.call("cuModuleLoadData", ctypes.byref(self.module), ptx)

    def kernel(self, name: str) -> ctypes.c_void_p:
        """Return a kernel of those that were loaded."""
        function = ctypes.c_void_p()
        self.driver.call("cuModuleGetFunction", ctypes.byref(function), self.module, name.encode())
        return function

    def launch(self, function: ctypes.c_void_p, blocks: int, shared: int, *arguments: Any) -> None:
        """Begin a kernel of `blocks` blocks of 256 threads, with `shared` bytes of shared memory each."""
        places = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(value) for value in arguments))
        self.driver.call("cuLaunchKernel", function, blocks, 1, 1, 256, 1, 1, shared, None, places, None)

    def checksum(self, values: ctypes.c_uint64, count: int) -> int:
        """Return the sum of the bits of so many values of 32 bits, each times an odd number of its place."""
        total, value = self.memory(8), ctypes.c_uint64()
        self.driver.call("cuMemsetD8_v2", total, 0, ctypes.c_size_t(8))
        self.launch(self.kernel("checksum"), 1024, 0, values, ctypes.c_uint64(count), total)
        self.driver.call("cuMemcpyDtoH_v2", ctypes.byref(value), total, ctypes.c_size_t(8))
        self.free(total)
        return value.value

    def timed(self, begin: Callable[[], None], work: float, seconds: float) -> float:
        """Repeat `begin`, which begins something, for about `seconds`; return the median of `work` per second."""
        begin()
        self.wait()
        at = time.perf_counter()
        begin()
        self.wait()
        batch = max(1, int(0.1 / max(time.perf_counter() - at, 1e-6)))
        rates: List[float] = []
        end = time.perf_counter() + seconds
        while len(rates) < 3 or time.perf_counter() < end:
            at = time.perf_counter()
            for _ in range(batch):
                begin()
            self.wait()
            rates.append(batch * work / (time.perf_counter() - at))
        return statistics.median(rates)

    def multiply(self, seconds: float, under_load: Callable[[], Line]) -> Line:
        """Return TFLOP/s of a bf16 product, its checksum, and what `under_load` returned in the midst of it."""
        n, number = SIZE, ctypes.c_uint64(SIZE * SIZE)
        shared = self.attribute(97)  # shared memory a block may ask for
        stages = min(4, shared // STAGE)
        if stages < 2 or self.attribute(75) < 8:
            return {"no_product": "it needs compute capability 8.0, and 96 KiB of shared memory", **under_load()}
        a, b, c = self.memory(2 * n * n), self.memory(2 * n * n), self.memory(4 * n * n)
        for address, seed in ((a, 1), (b, 0x9E3779B9)):
            self.launch(self.kernel("fill"), 1024, 0, address, number, ctypes.c_uint32(seed))
        product = self.kernel("product%d" % stages)
        self.driver.call("cuFuncSetAttribute", product, 8, stages * STAGE)
        size, blocks, work = ctypes.c_int(n), (n // 128) * (n // 256), 2.0 * n**3 / 1e12

        def begin() -> None:
            self.launch(product, blocks, stages * STAGE, a, b, c, size)

        self.timed(begin, work, seconds / 2)
        for _ in range(30):
            begin()
        seen = under_load()
        self.wait()
        found: Line = {"matmul": self.timed(begin, work, seconds / 2), **seen}
        bits = self.checksum(c, SIZE * SIZE)
        found.update(checksum="%016x" % bits, exact=bits == RIGHT)
        try:
            begin = by_library(a, b, c)
            found["library_matmul"] = self.timed(begin, work, seconds / 2)
        except Failed as error:
            found["no_library"] = str(error)
        for address in (a, b, c):
            self.free(address)
        return found

    def copy(self) -> float:
        """Return GB/s of a copy within its memory: read and written bytes."""
        size = min(MEMORY, self.free_bytes() // 4)
        one, two = self.memory(size), self.memory(size)
        count, work = ctypes.c_size_t(size), 2 * size / 1e9
        rate = self.timed(lambda: self.driver.call("cuMemcpyDtoDAsync_v2", two, one, count, None), work, 0.5)
        self.free(one)
        self.free(two)
        return rate

    def exchange(self) -> Tuple[float, float]:
        """Return GB/s from the host's memory to it, and back."""
        host, there = ctypes.c_void_p(), self.memory(PINNED)
        self.driver.call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(PINNED), 0)
        size, work = ctypes.c_size_t(PINNED), PINNED / 1e9
        up = self.timed(lambda: self.driver.call("cuMemcpyHtoDAsync_v2", there, host, size, None), work, 0.5)
        down = self.timed(lambda: self.driver.call("cuMemcpyDtoHAsync_v2", host, there, size, None), work, 0.5)
        self.driver.call("cuMemFreeHost", host)
        self.free(there)
        return up, down


def load(*names: str) -> Any:
    """Return the first of these libraries that is there. Raises Missing."""
    why = ""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            why = why or str(error)
    raise Missing(why)


def find_libraries(*patterns: str) -> List[str]:
    """Return the files that these patterns find in the packages of a Python, as torch's wheels bring them."""
    roots = [os.path.join(sys.prefix, "lib"), "/usr/local/lib", "/opt/conda/lib", "/usr/lib"]
    below = [os.path.join(root, "python3*", "*-packages", "nvidia", one) for root in roots for one in patterns]
    return [path for pattern in below for path in sorted(glob.glob(pattern), reverse=True)]


def by_library(a: ctypes.c_uint64, b: ctypes.c_uint64, c: ctypes.c_uint64) -> Callable[[], None]:
    """Return what begins the same product by cuBLAS: bf16 in and out, sums in fp32. Raises Missing, or Failed."""
    for path in find_libraries("cublas/lib/libcublasLt.so.1*", "cu1*/lib/libcublasLt.so.1*")[:1]:
        load(path)  # what cuBLAS is linked with, and may not find by itself
    names = ["libcublas.so.13", "libcublas.so.12"]
    library = load(*names, *find_libraries("cublas/lib/libcublas.so.1*", "cu1*/lib/libcublas.so.1*"))
    handle, n, one, zero = ctypes.c_void_p(), SIZE, ctypes.c_float(1), ctypes.c_float(0)

    def call(name: str, *arguments: Any) -> None:
        status = getattr(library, name)(*arguments)
        if status:
            raise Failed("%s: status %d" % (name, status))

    call("cublasCreate_v2", ctypes.byref(handle))
    half, full, fp32, default = 14, 0, 68, -1  # CUDA_R_16BF, no transposition, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT
    first, second = (ctypes.byref(one), a, half, n, b, half, n), (ctypes.byref(zero), c, half, n, fp32, default)
    return lambda: call("cublasGemmEx", handle, 1, full, n, n, n, *first, *second)


def nvml_of(uuid: str) -> Tuple[Any, ctypes.c_void_p]:
    """Return NVML and its handle of a GPU. Raises Missing, or Failed where it knows no such GPU."""
    nvml, handle = load("libnvidia-ml.so.1"), ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        raise Failed("NVML knows no %s" % uuid)
    return nvml, handle


def count_errors(uuid: str) -> Line:
    """Return what a GPU's memories have counted so far, by NVML; what it does not tell is left out."""
    try:
        nvml, handle = nvml_of(uuid)
    except Failed:
        return {}
    said: Line = {}
    errors, rows = ctypes.c_ulonglong(), [ctypes.c_uint() for _ in range(4)]  # corrected, not, pending, failed
    if not nvml.nvmlDeviceGetTotalEccErrors(
        handle, 1, 0, ctypes.byref(errors)
    ):  # uncorrected, since the driver's start
        said["ecc_errors"] = errors.value
    if not nvml.nvmlDeviceGetRemappedRows(handle, *map(ctypes.byref, rows)):
        said["remapped_rows"] = sum(row.value for row in rows)
    return said


def tells(uuid: str) -> Callable[[], Line]:
    """Return a function that asks NVML what a GPU is doing; what it does not tell is left out."""
    try:
        nvml, handle = nvml_of(uuid)
    except Failed:
        return dict

    def ask() -> Line:
        said: Line = {}
        for key, name, kind, before in (
            ("power_limit", "nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint, ()),
            ("power", "nvmlDeviceGetPowerUsage", ctypes.c_uint, ()),
            ("reasons", "nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong, ()),
            ("sm_mhz", "nvmlDeviceGetClockInfo", ctypes.c_uint, (1,)),
            ("celsius", "nvmlDeviceGetTemperature", ctypes.c_uint, (0,)),
            ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", ctypes.c_uint, ()),
            ("pcie_gen", "nvmlDeviceGetCurrPcieLinkGeneration", ctypes.c_uint, ()),
        ):
            value: Any = kind()
            function = getattr(nvml, name, None)
            if function is not None and not function(handle, *before, ctypes.byref(value)):
                said[key] = value.value // 1000 if key.startswith("power") else value.value
        for key, name, first in (
            ("serial", "nvmlDeviceGetSerial", (handle,)),
            ("driver", "nvmlSystemGetDriverVersion", ()),
        ):
            text = ctypes.create_string_buffer(96)
            if not getattr(nvml, name)(*first, text, 96):
                said[key] = text.value.decode()
        on, links = ctypes.c_uint(), range(18)
        said["nvlinks"] = sum(
            not nvml.nvmlDeviceGetNvLinkState(handle, link, ctypes.byref(on)) and on.value for link in links
        )
        return said

    return ask


def stay_near(bus: str) -> None:
    """Keep this process on the processors near a GPU, where the machine says which those are."""
    try:
        with open("/sys/bus/pci/devices/%s/local_cpulist" % bus[-12:]) as file:
            near: set[int] = set()
            for part in file.read().strip().split(","):
                first, _, last = part.partition("-")
                near.update(range(int(first), int(last or first) + 1))
        os.sched_setaffinity(0, near & os.sched_getaffinity(0) or near)
    except (OSError, ValueError):
        return  # then its memory may be another socket's: slower, and told as it is


def measure(number: int, seconds: float, ready: Ready) -> Line:
    """Return the figures of GPU `number`; `ready` is called before it is loaded, and returns when all are."""
    gpu = Gpu(Driver(), number)
    stay_near(gpu.bus)
    gpu.load(kernels())
    ask, before = tells(gpu.uuid), count_errors(gpu.uuid)
    ready()
    at, began = time.time(), time.perf_counter()
    found: Line = {"kind": "gpu", "number": number, "uuid": gpu.uuid, "name": gpu.name, "bus": gpu.bus}
    found.update(kernel=platform.release(), **gpu.multiply(seconds, ask))
    found["copy"] = gpu.copy()
    found["to_gpu"], found["from_gpu"] = gpu.exchange()
    found.update(began=at, seconds=time.perf_counter() - began)
    found.update({key: count - before[key] for key, count in count_errors(gpu.uuid).items() if key in before})
    return found


def kernels() -> bytes:
    """Return the kernels' text, as the driver takes it."""
    return zlib.decompress(base64.b64decode(PTX)) + b"\0"


class Child:
    """A process of its own for something that may hang or end it: it sends one line."""

    held: List[int] = []  # noqa: RUF012 - the parent's ends of all children's pipes: no child is to hold another's

    def __init__(self, work: Callable[[Ready], Line]) -> None:
        """Begin `work(ready)`; what it returns is the line."""
        read, write = os.pipe()
        go_read, self.go_write = os.pipe()
        sys.stdout.flush()
        Child.held += [read, self.go_write]
        self.pid = os.fork()
        if self.pid == 0:
            for end in Child.held:
                os.close(end)
            out = os.fdopen(write, "w")

            def ready() -> None:
                out.write("\n")
                out.flush()
                os.read(go_read, 1)

            try:
                out.write(json.dumps(work(ready)) + "\n")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and this process ends here
                why = str(error) if isinstance(error, Failed) else repr(error)
                missing = {"missing": True} if isinstance(error, Missing) else {}
                out.write(json.dumps({"kind": "fault", "why": why, **missing}) + "\n")
            out.flush()
            os._exit(0)
        os.close(write)
        os.close(go_read)
        self.read, self.text, self.ended = read, b"", False

    def lines(self, count: int, end: float) -> List[str]:
        """Return the first `count` lines that it has sent; fewer when it ended, or the time `end` came."""
        while self.text.count(b"\n") < count:
            left = max(0.0, end - time.monotonic())  # what was sent in time is read after it as well
            if not select.select([self.read], [], [], left)[0]:
                break
            piece = os.read(self.read, 65536)
            if not piece:
                self.ended = True
                break
            self.text += piece
        return self.text.decode().split("\n")[:-1]

    def go(self) -> None:
        """Let it go on from where it is ready."""
        os.write(self.go_write, b"!")

    def end(self, of: Any, count: int, end: float) -> Line:
        """Return what it found: its line, or the fault that there is none."""
        lines = [line for line in self.lines(count, end) if line]
        try:
            os.kill(self.pid, signal.SIGKILL)  # has ended already, or never will
        except ProcessLookupError:
            pass
        found: Line
        if lines:
            found = json.loads(lines[-1])
        else:
            found = {"kind": "fault", "why": "the process ended without a word" if self.ended else LATE}
        if found["kind"] == "fault":
            found["of"] = of
        return found


def measured(numbers: Sequence[int], seconds: float) -> List[Line]:
    """Return what was found of GPUs that are all measured at the same time."""

    def work(number: int) -> Callable[[Ready], Line]:
        return lambda ready: measure(number, seconds, ready)

    children = [Child(work(number)) for number in numbers]
    end = time.monotonic() + PATIENCE
    for child in children:
        child.lines(1, end)
    for child in children:
        child.go()
    end = time.monotonic() + PATIENCE + 4 * seconds
    return [child.end(number, 2, end) for number, child in zip(numbers, children)]


def slow_ones(found: Iterable[Line]) -> List[int]:
    """Return which of these GPUs are slower in a figure than the median of their equals."""
    gpus = [line for line in found if line["kind"] == "gpu"]
    slow: set[int] = set()
    for name in {gpu["name"] for gpu in gpus}:
        equals = [gpu for gpu in gpus if gpu["name"] == name]
        for figure in ("matmul", "library_matmul", "copy", "to_gpu", "from_gpu"):
            told = [gpu[figure] for gpu in equals if figure in gpu]
            least = SLOW * statistics.median(told) if told else 0.0
            slow.update(gpu["number"] for gpu in equals if gpu.get(figure, least) < least)
    return sorted(slow)


class Id(ctypes.Structure):
    """What NCCL calls a unique id: the others find rank 0 by it."""

    _fields_ = (("bytes", ctypes.c_char * 128),)


class Collectives:
    """The calls of NVIDIA's library of collectives, each checked."""

    def __init__(self) -> None:
        """Load it. Raises Missing."""
        self.library: Any = load("libnccl.so.2", *find_libraries("nccl/lib/libnccl.so.2"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of it. Raises Failed with its name and the library's word."""
        status = getattr(self.library, name)(*arguments)
        if status:
            self.library.ncclGetErrorString.restype = ctypes.c_char_p
            raise Failed("%s: %s" % (name, self.library.ncclGetErrorString(status).decode()))

    def join(self, gpus: Sequence[Gpu], ranks: int, rank: int, given: str) -> List[ctypes.c_void_p]:
        """Join these GPUs, from `rank` on, with those that have the same id; rank 0 makes it where none is given."""
        handle = Id()
        if given:
            ctypes.memmove(ctypes.byref(handle), bytes.fromhex(given), 128)
        else:
            self.call("ncclGetUniqueId", ctypes.byref(handle))
        if not given and ranks > len(gpus):
            told = {"kind": "id", "id": ctypes.string_at(ctypes.byref(handle), 128).hex()}
            os.write(1, (json.dumps(told) + "\n").encode())
        comms = [ctypes.c_void_p() for _ in gpus]
        self.call("ncclGroupStart")
        for place, gpu in enumerate(gpus):
            gpu.use()
            self.call("ncclCommInitRank", ctypes.byref(comms[place]), ranks, handle, rank + place)
        self.call("ncclGroupEnd")
        return comms


def reduce_all(size: int, numbers: Sequence[int], ranks: int, rank: int, given: str) -> Line:
    """Return the bus bandwidth of an all-reduce of `size` bytes over `ranks` GPUs; these are here, from `rank` on."""
    log = "/tmp/shipway-nccl-%d" % os.getpid()
    os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,GRAPH,TUNING,NET", NCCL_DEBUG_FILE=log)
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    library, driver = Collectives(), Driver()
    gpus = [Gpu(driver, number) for number in numbers]
    comms, buffers = library.join(gpus, ranks, rank, given), []
    for place, gpu in enumerate(gpus):
        gpu.use()
        gpu.load(kernels())
        size = min(size, gpu.free_bytes() // 4)
        one, two = gpu.memory(size), gpu.memory(size)
        bits = ctypes.c_uint32.from_buffer(ctypes.c_float(rank + place + 1))
        gpu.driver.call("cuMemsetD32_v2", one, bits, ctypes.c_size_t(size // 4))
        gpu.wait()
        buffers.append((one, two))

    def run(times: int) -> None:
        for _ in range(times):
            library.call("ncclGroupStart")
            for (one, two), comm, gpu in zip(buffers, comms, gpus):
                gpu.use()
                library.call("ncclAllReduce", one, two, ctypes.c_size_t(size // 4), 7, 0, comm, None)
            library.call("ncclGroupEnd")
        for gpu in gpus:
            gpu.use()
            gpu.wait()

    run(3)
    at, times = time.perf_counter(), 20
    run(times)
    took = (time.perf_counter() - at) / times
    # Of an odd number of values that are all the same the checksum is unlike that of any other value.
    want, number, right = (
        ctypes.c_uint32.from_buffer(ctypes.c_float(ranks * (ranks + 1) / 2)).value,
        (size // 4 - 1) | 1,
        True,
    )
    for gpu, (_, two) in zip(gpus, buffers):
        gpu.use()
        right = right and gpu.checksum(two, number) == want * number * number % 2**64
    version = ctypes.c_int()
    library.call("ncclGetVersion", ctypes.byref(version))
    bandwidth = 2 * (ranks - 1) / ranks * size / took / 1e9
    found: Line = {"kind": "collective", "gpus": ranks, "bytes": size, "bandwidth": bandwidth, "right": right}
    return {**found, "nccl": version.value, **read_log(log)}


def read_log(path: str) -> Line:
    """Return what NCCL wrote of its ways: the algorithm, and by what the GPUs reach each other; remove the file."""
    try:
        with open(path, errors="replace") as file:
            words = file.read()
        os.unlink(path)
    except OSError:
        return {}
    found: Line = {"via": sorted(set(re.findall(r" via (\S+)", words)))}
    for key, pattern in (("algorithm", r"AllReduce: .*Algo (\S+)"), ("network", r"Using network (\S+)")):
        last = re.findall(pattern, words)[-1:]
        if last:
            found[key] = last[0].lower()
    return found


def main(options: Dict[str, str]) -> None:
    """Measure as the options say, and print what was found."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    seconds = float(options.get("seconds", "5"))
    end = time.monotonic() + PATIENCE
    counted = Child(lambda _: {"kind": "count", "count": Driver().count()}).end("probe", 1, end)
    if counted["kind"] == "fault":
        print(json.dumps(counted), flush=True)
        return
    count = counted["count"]
    if seconds:
        found = measured(range(count), seconds)
        for number in slow_ones(found):
            found[number]["alone"] = measured([number], seconds)[0]
        for line in found:
            print(json.dumps(line), flush=True)
    only = [int(number) for number in options.get("only", "").split(",") if number] or list(range(count))
    size, ranks = int(options.get("collective", "0")), int(options.get("ranks", str(len(only))))
    if size and ranks > 1:
        child = Child(lambda _: reduce_all(size, only, ranks, int(options.get("rank", "0")), options.get("id", "")))
        print(json.dumps(child.end("collective", 1, time.monotonic() + 3 * PATIENCE)), flush=True)


if __name__ == "__main__":
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
