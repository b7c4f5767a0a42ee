"""kubeadm: version, init, join, reset, tokens, images."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.kubeadm import config as cluster_config
from lab.simulated.kubeadm import init, join, texts
from lab.simulated.kubeadm.config import Asked, BadConfig
from lab.simulated.kubeadm.files import SOCKET
from lab.simulated.kubeadm.preflight import failed
from lab.simulated.releases import minor_of, since

_FLAGS = "-f --print-join-command --skip-token-print"
_VALUES = (
    "--config --kubernetes-version --image-repository --ignore-preflight-errors --token --discovery-token-ca-cert-hash "
    "--node-name --ttl --description --kubeconfig -o --cri-socket"
)
Action = Callable[[Call, Parsed], Coroutine[Any, Any, int]]


def installed(call: Call) -> str:
    """Return the version of the installed kubeadm."""
    return call.host.packages.installed["kubeadm"].version.split("-")[0]


@program("kubeadm", needs=("kubeadm",))
async def kubeadm(call: Call) -> int:
    """Do one of kubeadm's actions."""
    asked = parse(call.args, flags=_FLAGS, values=_VALUES)
    words = " ".join(asked.rest)
    actions: dict[str, Action] = {
        "version": _version,
        "init phase addon": _addon,
        "init": _init,
        "join": _join,
        "reset": _reset,
        "token create": _create_token,
        "token delete": _delete_token,
        "config images list": _images,
    }
    if (
        asked.unknown
        or (asked.value("--cri-socket") not in ("", SOCKET))
        or ("--cri-socket" in asked.values and words != "reset")
    ):
        return call.not_simulated()
    for name, action in actions.items():
        if words == name or words.startswith(f"{name} "):
            if name not in ("version", "config images list") and not call.root:
                return call.warn(
                    "error execution phase preflight: [preflight] Some fatal errors occurred:\n\t[ERROR IsPrivilegedUser]: user is not running as root"
                )
            return await action(call, asked)
    return call.not_simulated()


async def _version(call: Call, asked: Parsed) -> int:
    version = f"v{installed(call)}"
    return call.say(f"{version}\n") if asked.value("-o") == "short" else call.not_simulated()


def _read(call: Call, asked: Parsed) -> Asked:
    """Return what init or join is asked; raises BadConfig."""
    version = installed(call)
    path = asked.value("--config")
    text = ""
    if path:
        found = call.host.files.read(path)
        if found is None:
            raise BadConfig(f'unable to read config from "{path}" : open {path}: no such file or directory')
        text = found.decode()
    minor = minor_of(version)
    name = asked.value("--node-name", default=call.host.kernel.hostname)
    wanted = asked.value("--kubernetes-version", default=version)
    config = cluster_config.read(text, minor, node_name=name, address=call.host.address, version=wanted)
    ignored = asked.value("--ignore-preflight-errors").lower().split(",")
    hashes = asked.values.get("--discovery-token-ca-cert-hash", [])
    return replace(
        config,
        ignored=config.ignored | {word for word in ignored if word},
        repository=config.repository or asked.value("--image-repository"),
        token=config.token or asked.value("--token"),
        ca_hashes=config.ca_hashes or tuple(hashes),
        server=config.server or (asked.rest[1] if len(asked.rest) > 1 else ""),
    )


async def _init(call: Call, asked: Parsed) -> int:
    try:
        config = _read(call, asked)
    except BadConfig as error:
        return failed(call, str(error))
    own = minor_of(installed(call))
    if not own - 1 <= config.minor <= own:
        least = f"1.{own - 1}.0"
        return failed(
            call,
            f"this version of kubeadm only supports deploying clusters with the control plane version >= {least}. Current version: v{config.version}",
        )
    return await init.init(call, config)


async def _addon(call: Call, asked: Parsed) -> int:
    """Write kube-proxy or CoreDNS anew, as the phase does: what is there is updated, its replicas stay."""
    try:
        config = _read(call, asked)
    except BadConfig as error:
        return failed(call, str(error))
    names = ("kube-proxy", "coredns") if asked.rest[3:] == ["all"] else tuple(asked.rest[3:])
    if call.host.link.control is not call.host or call.host.link.cluster is None:
        return failed(call, f"error execution phase addon: no cluster on SIMULATED {call.host.name}")
    await call.took(1.0)
    for name in names:
        call.host.link.cluster.write_addon(name, config.kube_proxy)
        title = "CoreDNS" if name == "coredns" else "kube-proxy"
        call.say(f"[addons] Applied essential addon: {title}\n")
    return 0


async def _join(call: Call, asked: Parsed) -> int:
    try:
        config = _read(call, asked)
    except BadConfig as error:
        return failed(call, str(error))
    return await join.join(call, config)


async def _reset(call: Call, asked: Parsed) -> int:  # noqa: ARG001 - every action is called alike
    files, host = call.host.files, call.host
    control = host.link.control is host or files.exists("/etc/kubernetes/admin.conf")
    etcd_known = files.exists("/etc/kubernetes/manifests/etcd.yaml")
    await call.took(1.5)
    kubelet = files.exists("/var/lib/kubelet")
    up = host.link.runs_control_plane(host)
    removed = host.link.views[host.name].name if up and host.name in host.link.views else ""
    minor = minor_of(installed(call))
    if since(minor, "reset_says_little"):  # it clears etcd's folder on every host, but says so of an empty one never
        etcd_known = files.names("/var/lib/etcd") != []
    call.say(texts.reset(minor, control_plane=control, etcd_known=etcd_known, kubelet=kubelet, removed=removed))
    if not up:
        log = "removeetcdmember.go:79] [reset] No kubeadm config, using etcd pod spec to get data directory"
        call.warn(f"W1123 00:00:00.000000       1 {log}")
    if not kubelet:
        what = 'Failed to evaluate the "/var/lib/kubelet" directory. Skipping its unmount and cleanup'
        why = "lstat /var/lib/kubelet: no such file or directory"
        call.warn(f"W1123 00:00:00.000000       1 cleanupnode.go:81] [reset] {what}: {why}")
    unit = host.units.get("kubelet")
    if unit is not None:
        host.units.stop(unit)
    await host.link.forget(host)
    for folder in ("/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/var/lib/kubelet", "/var/lib/cni"):
        for path in files.under(folder):
            files.remove(path)
    if etcd_known:
        for path in files.under("/var/lib/etcd"):
            files.remove(path)
    for name in ("admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"):
        files.remove(f"/etc/kubernetes/{name}.conf")
    host.changed()
    return 0


async def _images(call: Call, asked: Parsed) -> int:
    try:
        return call.say("".join(f"{image}\n" for image in _read(call, asked).images()))
    except BadConfig as error:
        return failed(call, str(error))


def _admin(call: Call, asked: Parsed) -> str:
    """Say why the API cannot be asked as its administrator; empty where it can."""
    path = asked.value("--kubeconfig", default="/etc/kubernetes/admin.conf")
    if not call.host.files.exists(path):
        return f"failed to load admin kubeconfig: open {path}: no such file or directory"
    cluster = call.host.link.cluster
    if cluster is None or call.host.link.api_of(call.host, cluster.endpoint) is None:
        server = cluster.endpoint if cluster is not None else "127.0.0.1:6443"
        return f'Get "https://{server}/api/v1/namespaces/kube-system?timeout=10s": dial tcp {server}: connect: connection refused'
    return ""


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text or 0)


async def _create_token(call: Call, asked: Parsed) -> int:
    """Make a token and print it, or the whole join command."""
    await call.took(1.0)
    trouble = _admin(call, asked)
    cluster = call.host.link.cluster
    if trouble or cluster is None:
        return failed(call, trouble)
    ttl = _seconds(asked.value("--ttl", default="24h"))
    token = cluster.create_token(ttl, asked.value("--description"), token=asked.rest[2] if len(asked.rest) > 2 else "")
    if asked.has("--print-join-command"):
        return call.say(
            f"kubeadm join {cluster.endpoint} --token {token} --discovery-token-ca-cert-hash {cluster.ca_hash} \n"
        )
    return call.say(f"{token}\n")


async def _delete_token(call: Call, asked: Parsed) -> int:
    """Delete a token by its id or whole."""
    trouble = _admin(call, asked)
    cluster = call.host.link.cluster
    if trouble or cluster is None:
        return failed(call, trouble)
    name = asked.rest[2].split(".")[0]
    if not cluster.delete_token(name):
        return failed(call, f'failed to delete bootstrap token "{name}": secrets "bootstrap-token-{name}" not found')
    return call.say(f'bootstrap token "{name}" deleted\n')
