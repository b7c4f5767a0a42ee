"""Programs about the network: curl, ip, ss, apt-helper."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.packages import SERVER
from lab.simulated.proxies import by_apt

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

_FLAGS = "-f -s -S -L -k -I -v -g --fail --silent --show-error --location --insecure --head --retry-connrefused"
_VALUES = "-o -w -m -H -X -d -A -x --proxy --max-time --connect-timeout --retry --retry-delay --output --write-out --cacert --cert --key --noproxy"
_SAID = {403: "403  Forbidden", 404: "404  Not Found", 407: "407  Proxy Authentication Required"}  # apt's way to say it
ETCD = 2379
_CONNECT_FAILED, _HTTP_ERROR, _TIMED_OUT, _RECEIVE_ERROR = 7, 22, 28, 56


@program("curl", needs=("curl",))
async def curl(call: Call) -> int:
    """Fetch an address of the simulated world, or the health of the simulated API."""
    asked = parse(call.args, flags=_FLAGS, values=_VALUES)
    url = asked.rest[0].partition("#")[0]  # a fragment is never sent
    if urlsplit(url).port == ETCD:
        answer = call.host.link.etcd(call.host, url, asked.value("-d"))
        call.out(answer)
        return 0 if answer else call.warn(f"curl: (7) Failed to connect to {urlsplit(url).netloc}", _CONNECT_FAILED)
    environment = dict(call.env)
    through = asked.value("-x", "--proxy") or environment.get(f"{url.partition(':')[0]}_proxy", "")
    code, body, trouble = await _fetched(call, url, float(asked.value("-m", "--max-time", default="60")), through)
    connect = call.host.packages.world.connect(url, through)
    if trouble:
        if not asked.has("-s", "--silent") or asked.has("-S", "--show-error"):
            call.warn(trouble[1])
        _write_out(call, asked.value("-w", "--write-out"), 0, connect)
        return trouble[0]
    if code >= 400 and asked.has("-f", "--fail"):
        call.warn(f"curl: (22) The requested URL returned error: {code}")
        _write_out(call, asked.value("-w", "--write-out"), code, connect)
        return _HTTP_ERROR
    target = asked.value("-o", "--output")
    if target not in ("", "/dev/null"):
        return call.not_simulated()
    if not target:
        call.out(body)
    _write_out(call, asked.value("-w", "--write-out"), code, connect)
    return 0


def _write_out(call: Call, shape: str, code: int, connect: int) -> None:
    if shape:
        call.say(
            shape.replace("%{http_connect}", f"{connect:03d}")
            .replace("%{http_code}", f"{code:03d}")
            .replace("%{response_code}", f"{code:03d}")
            .replace("\\n", "\n")
        )


async def _fetched(call: Call, url: str, limit: float, through: str = "") -> tuple[int, bytes, tuple[int, str] | None]:
    """Return status and body, or curl's exit status and message."""
    parts = urlsplit(url)
    world = call.host.packages.world
    api = await call.host.link.asked(call.host, url)
    if api is not None:
        code, body = api
        if code:
            return code, body, None
        where = f"{parts.hostname} port {parts.port or 443}"
        return (
            0,
            b"",
            (_CONNECT_FAILED, f"curl: (7) Failed to connect to {where} after 0 ms: Couldn't connect to server"),
        )
    if world.is_proxy(through) and not world.admits(through):
        refusal = (_RECEIVE_ERROR, "curl: (56) CONNECT tunnel failed, response 407")
        return (0, b"", refusal) if url.startswith("https:") else (407, b"", None)
    if not world.answers(url, through):
        await call.took(limit)
        message = f"curl: (28) Connection timed out after {int(limit * 1000)} milliseconds"
        return 0, b"", (_TIMED_OUT, message)
    await call.took(0.2)
    refused = next((start for start in world.refused if url.startswith(start)), None)
    if refused is not None:
        return 403, b"Forbidden\n", None
    found = world.page(url)
    return (200, found, None) if found is not None else (404, b"Not Found\n", None)


@program("ip")
async def ip(call: Call) -> int:
    """Show the host's addresses, a line each, or find no device to delete; nothing else is simulated."""
    asked = parse(call.args, flags="-o -4", single_dash=True)
    if asked.rest[:2] == ["link", "delete"]:
        return call.warn(f'Cannot find device "{asked.rest[-1]}"')
    if not asked.has("-o") or asked.rest[:1] != ["addr"]:
        return call.not_simulated()
    end = "\\       valid_lft forever preferred_lft forever"
    call.say(f"1: lo    inet 127.0.0.1/8 scope host lo{end}\n")
    address = call.host.address
    broadcast = f"{address.rpartition('.')[0]}.255"
    return call.say(f"2: eth0    inet {address}/24 brd {broadcast} scope global eth0{end}\n")


@program("ss")
async def ss(call: Call) -> int:
    """List listening sockets; connections that stand are not simulated, so there are none."""
    asked = parse(call.args, flags="-H -l -t -n -p -u -4 -a")
    if "established" in asked.rest:
        return 0
    if not asked.has("-H"):
        call.say("State  Recv-Q Send-Q Local Address:Port  Peer Address:Port Process\n")
    for at, port, owner in _sockets(call.host):
        name = f'users:(("{owner}",pid=1000,fd=3))' if asked.has("-p") and call.root else ""
        peer = {"*": "*", "[::]": "[::]"}.get(at, "0.0.0.0")
        call.say(f"LISTEN 0      4096 {f'{at}:{port}':>18} {f'{peer}:*':>9} {name}\n")
    return 0


def _sockets(host: SimulatedHost) -> list[tuple[str, int, str]]:
    """Return address, port and owner of every socket that listens, where each program of a real host listens."""
    own = {2379: ("127.0.0.1", host.address), 2380: (host.address,), 22: ("0.0.0.0", "[::]")}
    own |= dict.fromkeys((10257, 10259), ("127.0.0.1",)) | dict.fromkeys((6443, 10250), ("*",))
    known = sorted(listening(host).items())
    return [(at, port, owner) for port, owner in known for at in own.get(port, ("0.0.0.0",))]


def listening(host: SimulatedHost) -> dict[int, str]:
    """Return the ports in use on the host, each with the program that holds it."""
    ports = {22: "sshd", **host.link.reach.ports(host)}
    if host.services.kubelet_up:
        ports[10250] = "kubelet"
    if host.link.runs_control_plane(host):
        ports |= {6443: "kube-apiserver", 2379: "etcd", 2380: "etcd", 10257: "kube-controller", 10259: "kube-scheduler"}
    return ports


@program("apt-helper")
async def apt_helper(call: Call) -> int:
    """Download a file as apt does."""
    asked = parse(call.args, values="-o -c")
    if asked.rest[:1] == ["auto-detect-proxy"] and len(asked.rest) > 1:  # no script that finds one is configured
        return call.say(f"Using proxy '' for URL '{asked.rest[1]}'\n")
    if asked.rest[:1] != ["download-file"] or len(asked.rest) < 3:
        return call.warn("E: Invalid operation", 100)
    url, target = asked.rest[1:3]
    code, body, trouble = await _fetched(call, url, 30.0, by_apt(call.host.files, url))
    if trouble or code >= 400:
        where = urlsplit(url).netloc
        refused = f"Could not connect to {where} ({urlsplit(url).hostname}). - connect (111: Connection refused)"
        why = refused if trouble else f"{_SAID.get(code, code)} {SERVER}"
        call.warn(f"E: Failed to fetch {url}  {why}")
        return call.warn("E: Download Failed", 100)
    if not call.host.files.exists(posixpath.dirname(target)):
        return call.warn(f"E: Could not open file {target} - open (2: No such file or directory)", 100)
    call.host.files.write(target, body)
    return call.say(f"Get:1 {url} [{len(body)} B]\nFetched {len(body)} B in 0s (0 B/s)\n")
