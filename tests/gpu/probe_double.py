"""A TEST DOUBLE of the libraries that the probe calls: GPUs that only count, on a clock that only they move.

    python3 probe_double.py SCENE PROGRAM [option=value ...]

SCENE is JSON: gpus, and by a GPU's number `slow` (a factor), `wrong`, `hangs`, `dies`; `missing` libraries, `old` GPUs,
`untrue` collective, `patience` in seconds. It is as old a Python's as the probe is.
"""

import ctypes
import json
import os
import sys
import time

SCENE = json.loads(sys.argv[1])
RIGHT = 0x1BC30882FB2871FC
STEP = 0.001  # seconds of a product, a copy or a reduction
BYTES = {"product": RIGHT}


def value_at(place):
    return ctypes.cast(place, ctypes.POINTER(ctypes.c_uint64)).contents


class Library:
    """Calls that always succeed and change nothing, but for those below."""

    def __init__(self, state):
        self.state = state

    def __getattr__(self, name):
        return lambda *arguments: 0


class State:
    """What this process has done so far."""

    def __init__(self):
        self.number, self.pending, self.next, self.clock = 0, 0.0, 4096, 0.0
        self.kernels, self.contents, self.reduced = [], {}, []
        self.ptx = b""

    def work(self, seconds=STEP):
        self.pending += seconds * SCENE.get("slow", {}).get(str(self.number), 1)


class Cuda(Library):
    def cuGetErrorString(self, status, ref):
        ref._obj.value = b"named symbol not found"
        return 0

    def cuDeviceGetCount(self, ref):
        ref._obj.value = SCENE["gpus"]
        return 0

    def cuDeviceGet(self, ref, number):
        ref._obj.value = number
        return 0

    def cuDevicePrimaryCtxRetain(self, ref, device):
        ref._obj.value = device.value + 1
        return 0

    def cuCtxSetCurrent(self, context):
        self.state.number = context.value - 1
        return 0

    def cuDeviceGetName(self, text, size, device):
        text.value = b"NVIDIA H200"
        return 0

    def cuDeviceGetUuid(self, octets, device):
        octets[15] = device.value
        return 0

    def cuDeviceGetPCIBusId(self, text, size, device):
        text.value = b"0000:0%d:00.0" % device.value
        return 0

    def cuDeviceGetAttribute(self, ref, which, device):
        ref._obj.value = {97: 232448, 75: 7 if SCENE.get("old") else 9}[which]
        return 0

    def cuMemAlloc_v2(self, ref, size):
        ref._obj.value = self.state.next
        self.state.next += size.value
        return 0

    def cuMemGetInfo_v2(self, free, total):
        free._obj.value = total._obj.value = 1 << 32
        return 0

    def cuModuleLoadData(self, ref, ptx):
        self.state.ptx = ptx
        return 0 if ptx.endswith(b"\0") and b".version 7.0" in ptx else 218

    def cuModuleGetFunction(self, ref, module, name):
        if b".entry " + name + b"(" not in self.state.ptx:
            return 500
        self.state.kernels.append(name.decode())
        ref._obj.value = len(self.state.kernels)
        return 0

    def cuLaunchKernel(self, function, x, y, z, a, b, c, shared, stream, places, extra):
        state = self.state
        name = state.kernels[function.value - 1]
        if name.startswith("product"):
            state.work()
            wrong = str(state.number) in SCENE.get("wrong", ())
            state.contents[value_at(places[2]).value] = ("product", RIGHT ^ wrong)
        if name == "checksum":
            kind, bits = state.contents[value_at(places[0]).value]
            count = value_at(places[1]).value
            total = bits if kind == "product" else bits * count * count
            state.contents[value_at(places[2]).value] = ("total", total % 2**64)
        return 0

    def cuCtxSynchronize(self):
        if str(self.state.number) in SCENE.get("hangs", ()):
            time.sleep(3600)
        if str(self.state.number) in SCENE.get("dies", ()):
            os._exit(139)
        self.state.clock += self.state.pending
        self.state.pending = 0.0
        return 0

    def cuMemsetD32_v2(self, address, bits, count):
        self.state.contents[address.value] = ("same", bits.value)
        return 0

    def cuMemcpyDtoH_v2(self, ref, address, size):
        ref._obj.value = self.state.contents[address.value][1]
        return 0

    def cuMemcpyDtoDAsync_v2(self, *arguments):
        self.state.work()
        return 0

    cuMemcpyHtoDAsync_v2 = cuMemcpyDtoHAsync_v2 = cuMemcpyDtoDAsync_v2


class Nvml(Library):
    def nvmlDeviceGetEnforcedPowerLimit(self, handle, ref):
        ref._obj.value = 700000
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle, ref):
        ref._obj.value = 4
        return 0

    def nvmlDeviceGetTotalEccErrors(self, handle, kind, counter, ref):
        ref._obj.value = 7 + 3 * (self.state.clock > 0 and str(self.state.number) in SCENE.get("failing", ()))
        return 0 if (kind, counter) == (1, 0) and not SCENE.get("no_ecc") else 3

    def nvmlDeviceGetRemappedRows(self, handle, corrected, uncorrected, pending, failed):
        pending._obj.value = self.state.clock > 0 and str(self.state.number) in SCENE.get("failing", ())
        uncorrected._obj.value = 1
        return 3 if SCENE.get("no_ecc") else 0

    def nvmlDeviceGetSerial(self, handle, text, size):
        text.value = b"1654"
        return 0

    def nvmlSystemGetDriverVersion(self, text, size):
        text.value = b"580.159.04"
        return 0

    def nvmlDeviceGetNvLinkState(self, handle, link, ref):
        ref._obj.value = 1
        return 0 if link < 18 else 2


class Cublas(Library):
    def cublasGemmEx(self, handle, *arguments):
        assert len(arguments) == 18, arguments
        self.state.work(STEP / 2)
        return 0


def as_float(bits):
    return ctypes.c_float.from_buffer(ctypes.c_uint32(bits)).value


class Word:
    """A function that returns a text, whose type can be told."""

    def __init__(self, text):
        self.text = text

    def __call__(self, status):
        return self.text


class Nccl(Library):
    ncclGetErrorString = Word(b"unhandled cuda error")

    def ncclGetVersion(self, ref):
        ref._obj.value = 22803
        return 0

    def ncclCommInitRank(self, ref, ranks, handle, rank):
        return 1 if SCENE.get("no_ring") else 0

    def ncclAllReduce(self, one, two, *arguments):
        self.state.reduced.append((one.value, two.value))
        return 0

    def ncclGroupEnd(self):
        state = self.state
        total = sum(as_float(state.contents[one][1]) for one, _ in state.reduced) + bool(SCENE.get("untrue"))
        for _, two in state.reduced:
            state.contents[two] = ("same", ctypes.c_uint32.from_buffer(ctypes.c_float(total)).value)
        if state.reduced:
            state.work()
            with open(os.environ["NCCL_DEBUG_FILE"], "w") as file:
                file.write("[0] NCCL INFO Using network Socket\n0[0] -> 1[1] via P2P/direct pointer\n")
                file.write("AllReduce: 1073741824 Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..23}\n")
        state.reduced = []
        return 0


STATE = State()
KNOWN = {"libcuda": Cuda, "libnvidia-ml": Nvml, "libcublas": Cublas, "libnccl": Nccl}


def loaded(name):
    stem = os.path.basename(name).split(".so")[0]
    if stem in SCENE.get("missing", ()) or stem not in KNOWN:
        raise OSError("%s: cannot open shared object file: No such file or directory" % name)
    return KNOWN[stem](STATE)


ctypes.CDLL = loaded
time.perf_counter = lambda: STATE.clock
with open(sys.argv[2]) as source:
    text = source.read().replace("PATIENCE = 60", "PATIENCE = %d" % SCENE.get("patience", 60), 1)
del sys.argv[1:3]
exec(compile(text, "probe.py", "exec"), {"__name__": "__main__"})
