"""The way of a simulated host to the internet: the proxies that its apt and its containerd have, as the real ones read them."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shipway.site.proxies import direct

if TYPE_CHECKING:
    from lab.simulated.files import FileTree
    from lab.simulated.host import SimulatedHost

CONF = "/etc/apt/apt.conf"
DROP_INS = "/etc/systemd/system/containerd.service.d"
_SETTING = re.compile(r'^\s*(Acquire::https?::Proxy(?:::[^\s"]+)?)\s+"([^"]*)"\s*;', re.MULTILINE)


def apt_settings(files: FileTree) -> dict[str, str]:
    """Return apt's proxies by key; the last of its files wins, apt.conf after all of apt.conf.d (apt.conf(5))."""
    texts = [files.text(f"{CONF}.d/{name}") for name in files.names(f"{CONF}.d") or ()]
    return {key: value for text in (*texts, files.text(CONF)) for key, value in _SETTING.findall(text)}


def by_apt(files: FileTree, url: str) -> str:
    """Return the proxy that apt takes for an address; "" for none."""
    parts, have = urlsplit(url), apt_settings(files)
    keys = [
        f"Acquire::{parts.scheme}::Proxy::{parts.hostname}",
        f"Acquire::{parts.scheme}::Proxy",
        "Acquire::http::Proxy",
    ]
    found = next((have[key] for key in keys if have.get(key)), "")
    return "" if found == "DIRECT" else found


def in_files(files: FileTree) -> dict[str, str]:
    """Return the environment that systemd's drop-ins have for containerd; EnvironmentFile wins (systemd.exec(5))."""
    plain: dict[str, str] = {}
    from_files: dict[str, str] = {}
    for name in files.names(DROP_INS) or ():
        for line in files.text(f"{DROP_INS}/{name}").splitlines():
            key, _, value = line.strip().partition("=")
            if key == "Environment":
                plain |= dict(word.replace("%%", "%").split("=", 1) for word in shlex.split(value) if "=" in word)
            elif key == "EnvironmentFile":
                lines = shlex.split(files.text(value.lstrip("-")), comments=True)
                from_files |= dict(word.split("=", 1) for word in lines if "=" in word)
    return plain | from_files


def by_containerd(host: SimulatedHost, url: str) -> str:
    """Return the proxy that containerd takes: of the environment it was started with, else of what it would be."""
    unit = host.units.get("containerd")
    running = unit is not None and unit.active == "active"
    have = host.services.containerd_environment if running else in_files(host.files)
    lowered = {key.lower(): value for key, value in have.items()}
    parts = urlsplit(url)
    if direct(parts.hostname or "", lowered.get("no_proxy", "").split(",")):
        return ""
    return lowered.get(f"{parts.scheme}_proxy", "")
