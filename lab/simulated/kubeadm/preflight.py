"""kubeadm's preflight checks on a simulated host: their order, their names and their words."""

from __future__ import annotations

from collections.abc import Iterable

from lab.simulated.commands.containerd import pull
from lab.simulated.commands.network import listening
from lab.simulated.commands.registry import Call
from lab.simulated.kubeadm.config import Asked
from lab.simulated.kubeadm.texts import said
from lab.simulated.releases import minor_of, since

Error = tuple[str, str]
PKI = "/etc/kubernetes/pki"
MANIFESTS = "/etc/kubernetes/manifests"
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
TRACE = "To see the stack trace of this error execute with --v=5 or higher"
IGNORE = (
    "[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`"
)


def failed(call: Call, text: str) -> int:
    """Tell the error that a run of kubeadm ends with, as the installed kubeadm tells it, and return its exit status."""
    version = call.host.packages.installed["kubeadm"].version
    start = "error: " if since(minor_of(version), "errors_begin_with_error") else ""
    return call.warn(f"{start}{text}\n{TRACE}")


def _dashed(path: str) -> str:
    return path.replace("/", "-")


def _port(call: Call, port: int) -> list[Error]:
    return [(f"Port-{port}", f"Port {port} is in use")] if port in listening(call.host) else []


def _absent(call: Call, path: str) -> list[Error]:
    return [(f"FileAvailable-{_dashed(path)}", f"{path} already exists")] if call.host.files.exists(path) else []


def _runtime(call: Call, minor: int) -> list[Error]:
    services = call.host.services
    if services.containerd_up:
        return []
    unit = call.host.units.get("containerd")
    up = unit is not None and unit.active == "active"
    why = said("runtime has no CRI" if up else "runtime is down", minor)
    twice = since(minor, "runtime_version_is_checked")
    names = ("CRI", "ContainerRuntimeVersion") if twice else ("CRI",)
    return [(name, said("runtime does not answer", minor, why=why)) for name in names]


def _kernel(call: Call, minor: int) -> tuple[list[Error], list[Error]]:
    """Return errors and warnings about settings and swap."""
    errors: list[Error] = []
    settings = call.host.kernel.settings
    bridge = () if since(minor, "bridge_is_not_checked") else ("net.bridge.bridge-nf-call-iptables",)
    for key in (*bridge, "net.ipv4.ip_forward"):
        path = f"/proc/sys/{key.replace('.', '/')}"
        name = f"FileContent-{_dashed(path)}"
        if key not in settings:
            errors.append((name, f"{path} does not exist"))
        elif settings[key] != "1":
            errors.append((name, f"{path} contents are not set to 1"))
    if not call.host.kernel.swaps:
        return errors, []
    swap = ("Swap", said("swap", minor))
    return (errors, [swap]) if since(minor, "swap_is_a_warning") else ([*errors, swap], [])


def _system(call: Call, minor: int) -> list[Error]:
    """Return the verdict of the system verification, and print what it looked at where it is not content."""
    if call.host.kernel.cgroup != 1 or not since(minor, "cgroup_v1_fails"):
        return []
    rows = {"KERNEL_VERSION": call.host.kernel.release, "OS": "Linux", "CGROUPS_CPU": "enabled"}
    call.say("[preflight] The system verification failed. Printing the output from the verification:\n")
    call.say("".join(f"\x1b[0;37m{name}\x1b[0m: \x1b[0;32m{value}\x1b[0m\n" for name, value in rows.items()))
    return [("SystemVerification", said("cgroup v1", minor))]


async def of_init(call: Call, asked: Asked) -> tuple[list[Error], list[Error]]:
    """Return errors and warnings of init, but for images."""
    errors: list[Error] = []
    if call.host.kernel.cpus < 2:
        errors.append(("NumCPU", f"the number of available CPUs {call.host.kernel.cpus} is less than the required 2"))
    for port in (asked.port, 10259, 10257):
        errors += _port(call, port)
    for part in PARTS:
        errors += _absent(call, f"{MANIFESTS}/{part}.yaml")
    errors += _runtime(call, asked.minor)
    kernel, warnings = _kernel(call, asked.minor)
    errors += [*kernel, *_system(call, asked.minor)]
    for port in (10250, 2379, 2380):
        errors += _port(call, port)
    if call.host.files.names("/var/lib/etcd"):
        errors.append(("DirAvailable--var-lib-etcd", "/var/lib/etcd is not empty"))
    return errors, warnings


async def of_join(call: Call, asked: Asked) -> tuple[list[Error], list[Error]]:
    """Return errors and warnings of a join; a control plane's has what kubeadm checks of one, its shared keys too."""
    if asked.control_plane:
        found, warnings = await of_init(call, asked)
        names = ("ca.crt", "ca.key", "sa.key", "sa.pub", "front-proxy-ca.crt", "front-proxy-ca.key")
        missing = [n for n in (*names, "etcd/ca.crt", "etcd/ca.key") if not call.host.files.exists(f"{PKI}/{n}")]
        if missing:
            found.append(("Certificates", f"failure loading {', '.join(missing)}"))
        return found, warnings
    errors: list[Error] = []
    if not since(asked.minor, "any_manifests_on_join") and call.host.files.names(MANIFESTS):
        errors.append((f"DirAvailable-{_dashed(MANIFESTS)}", f"{MANIFESTS} is not empty"))
    for path in ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf"):
        errors += _absent(call, path)
    errors += _runtime(call, asked.minor)
    kernel, warnings = _kernel(call, asked.minor)
    errors += [*kernel, *_system(call, asked.minor), *_port(call, 10250)]
    return [*errors, *_absent(call, "/etc/kubernetes/pki/ca.crt")], warnings


async def pull_images(call: Call, wanted: Iterable[str], minor: int) -> list[Error]:
    """Pull images; return an error for each that is not to be had."""
    errors: list[Error] = []
    for image in wanted:
        if why := await pull(call, image):
            quoted = why.replace('"', '\\"')
            errors.append(("ImagePull", said("image pull", minor, image=image, why=why, quoted=quoted)))
    return errors


def passed(call: Call, asked: Asked, errors: list[Error], warnings: list[Error]) -> bool:
    """Tell warnings and errors, ignored ones as warnings; say whether none is left."""
    fatal = []
    for name, text in [*warnings, *errors]:
        soft = (name, text) in warnings or "all" in asked.ignored or name.lower() in asked.ignored
        if soft:
            call.warn(f"\t[WARNING {name}]: {text}")
        else:
            fatal.append(f"\t[ERROR {name}]: {text}")
    if fatal and since(asked.minor, "fatal_errors_stand_alone"):
        call.warn("\n".join(["[preflight] Some fatal errors occurred:", *fatal, IGNORE]))
        failed(call, "error execution phase preflight: preflight checks failed")
    elif fatal:
        head = "error execution phase preflight: [preflight] Some fatal errors occurred:"
        failed(call, "\n".join([head, *fatal, IGNORE]))
    return not fatal
