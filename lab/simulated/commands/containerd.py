"""containerd, ctr and crictl: the runtime's configuration, plugins and containers, and how images are pulled."""

from __future__ import annotations

import hashlib
import time
import tomllib
from typing import TYPE_CHECKING

import tomli_w

from lab.simulated import containerd
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.proxies import by_containerd
from shipway.edits.containerd import CERTS
from shipway.steps.system.origins import registry_of

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

_ENGINE = ("containerd.io", "containerd")
_SOCKET = "/run/containerd/containerd.sock"
_PLUGINS = (
    ("io.containerd.content.v1", "content", "-"),
    ("io.containerd.snapshotter.v1", "overlayfs", "linux/amd64"),
    ("io.containerd.metadata.v1", "bolt", "-"),
    ("io.containerd.runtime.v2", "task", "linux/amd64"),
    ("io.containerd.service.v1", "tasks-service", "-"),
    ("io.containerd.grpc.v1", "version", "-"),
)


@program("containerd", needs=_ENGINE)
async def daemon(call: Call) -> int:
    """Show the default configuration, or the effective one."""
    version = call.host.services.containerd_version
    asked = parse(call.args, values="-c --config -l --log-level")
    if asked.rest == ["config", "default"]:
        return call.say(tomli_w.dumps(containerd.default(version)))
    if asked.rest == ["config", "dump"]:
        try:
            return call.say(tomli_w.dumps(containerd.effective(call.host.files, version)))
        except containerd.BadConfig as error:
            return call.warn(str(error))
    return call.not_simulated()


def _down(call: Call) -> bool:
    unit = call.host.units.get("containerd")
    return unit is None or unit.active != "active"


@program("ctr", needs=_ENGINE)
async def ctr(call: Call) -> int:
    """List the daemon's plugins."""
    asked = parse(call.args, flags="-q", values="--connect-timeout --timeout -a --address -n --namespace")
    if _down(call):
        await call.took(5)
        reason = f'dial unix {_SOCKET}: connect: no such file or directory"'
        return call.warn(
            f'ctr: failed to dial "{_SOCKET}": connection error: desc = "transport: error while dialing: {reason}'
        )
    config = call.host.services.containerd_config
    if asked.rest[:1] in (["plugins"], ["plugin"]):
        rows = list(_PLUGINS)
        if containerd.cri_loaded(config):
            if config.get("version") == 2:
                rows.append(("io.containerd.grpc.v1", "cri", "linux/amd64"))
            else:
                rows += [("io.containerd.cri.v1", "runtime", "linux/amd64"), ("io.containerd.cri.v1", "images", "-")]
                rows.append(("io.containerd.grpc.v1", "cri", "-"))
        call.say(f"{'TYPE':<38} {'ID':<24} {'PLATFORMS':<14} {'STATUS':<10}\n")
        return call.say("".join(f"{kind:<38} {name:<24} {where:<14} {'ok':<10}\n" for kind, name, where in rows))
    return call.warn("ctr: SIMULATED hosts know plugins alone")


def _stamp(call: Call) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(call.host.now()))


def pull_error(image: str) -> str:
    """Return containerd's words for an image that its registry does not have."""
    return (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": '
        f'failed to resolve reference "{image}": {image}: not found'
    )


def pull_hindered(host: SimulatedHost, image: str) -> str:
    """Return containerd's words for a registry that it does not reach by the proxy that it has, "" where it does."""
    world, registry = host.packages.world, registry_of(image)
    mirrors = tomllib.loads(host.files.text(f"{CERTS}/{registry}/hosts.toml")).get("host", {})
    urls = [*mirrors, f"https://{registry}/v2/"]
    ways = [by_containerd(host, url) for url in urls]
    if any(world.answers(url, through) for url, through in zip(urls, ways, strict=True)):
        return ""
    asks = world.is_proxy(ways[-1]) and not world.admits(ways[-1])
    why = "Proxy Authentication Required" if asks else f"dial tcp: lookup {registry}: i/o timeout"
    return (
        f'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": failed to resolve reference '
        f'"{image}": failed to do request: Head "{urls[-1]}": {why}'
    )


async def pull(call: Call, image: str) -> str:
    """Pull an image; gives the error's text, empty when it is there."""
    if image in call.host.images:
        return ""
    if any(pattern in image for pattern in call.host.packages.world.missing_images):
        return pull_error(image)
    if why := pull_hindered(call.host, image):
        return why
    await call.took(1.0)
    call.host.images.add(image)
    return ""


@program("crictl", needs=("cri-tools",))
async def crictl(call: Call) -> int:
    """List the containers that the CRI knows."""
    asked = parse(
        call.args, flags="-a -q -D --debug -o", values="--runtime-endpoint -r --image-endpoint -i --timeout -t --output"
    )
    if not call.host.services.containerd_up:
        await call.took(2)
        where = f"connect: connect endpoint 'unix://{_SOCKET}', make sure you are running as root and the endpoint has been started"
        return call.warn(f'time="{_stamp(call)}" level=fatal msg="{where}: context deadline exceeded"')
    if asked.rest != ["ps"]:
        return call.not_simulated()
    return call.say(_containers(call, every=asked.has("-a")))


def _containers(call: Call, *, every: bool) -> str:
    head = f"{'CONTAINER':<16}{'IMAGE':<16}{'CREATED':<20}{'STATE':<12}{'NAME':<28}ATTEMPT  POD ID\n"
    shown = [row for row in call.host.link.containers(call.host) if every or row[1] == "Running"]
    return head + "".join(
        f"{_image_id(name)[7:20]:<16}{'SIMULATED':<16}{'now':<20}{state:<12}{name:<28}0        {pod}\n"
        for name, state, pod in shown
    )


def _image_id(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
