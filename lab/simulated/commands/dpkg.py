"""dpkg-query, dpkg, apt-mark, apt-cache and gpg: what is installed, held and offered, and what keys are there."""

from __future__ import annotations

from pysequoia import Cert

from lab.simulated import installs
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.files import content
from lab.simulated.commands.registry import Call, program
from lab.simulated.packages import NATIVE, Installed, split
from lab.simulated.world import fingerprints

_STATES = {"i": "installed", "U": "unpacked", "F": "half-configured", "H": "half-installed", "c": "config-files"}
# dpkg, unlike apt, does not name the program.
_LOCKED = (
    "dpkg: error: dpkg frontend lock was locked by another process with pid 1234\n"
    "Note: removing the lock file is always wrong, can damage the locked area\n"
    "and the entire system. See <https://wiki.debian.org/Teams/Dpkg/FAQ#db-lock>."
)


@program("dpkg-query")
async def dpkg_query(call: Call) -> int:
    """Show packages by a format."""
    asked = parse(call.args, flags="-W -l --show -s", values="-f --showformat")
    shape = asked.value("-f", "--showformat", default="${Package}\\t${Version}\\n")
    packages, status = call.host.packages, 0
    found: set[str] = set()
    for pattern in asked.rest or ["*"]:
        names = packages.matching(pattern)
        if not names:
            status = call.warn(f"dpkg-query: no packages found matching {pattern}")
        found |= set(names)
    for name in sorted(found):
        call.say(_shown(shape, name, packages.installed[name]))
    return status


def _shown(shape: str, name: str, package: Installed) -> str:
    """Fill dpkg's format; a package that is gone but for its files shows no version in that state either."""
    plain, architecture = split(name)
    fields = {
        "Package": plain,
        "binary:Package": name,
        "source:Package": package.source or plain,
        "Version": package.version,
        "Architecture": architecture,
        "db:Status-Abbrev": package.abbreviation,
        "Status": f"{'hold' if package.held else 'install'} ok {_STATES[package.state]}",
        "db:Status-Status": _STATES[package.state],
    }
    text = shape.replace("\\n", "\n").replace("\\t", "\t")
    for key, value in fields.items():
        text = text.replace(f"${{{key}}}", value)
    return text


@program("dpkg")
async def dpkg(call: Call) -> int:
    """Audit, finish what was begun, say the architecture, list and remove."""
    asked = parse(
        call.args,
        flags="--audit -C --configure -a --force-confdef --force-confold --print-architecture -l -s -r -P --purge --remove",
    )
    packages = call.host.packages
    if asked.has("--print-architecture"):
        return call.say("amd64\n")
    broken = {name: one for name, one in packages.installed.items() if one.state in "UF"}
    if asked.has("--audit", "-C"):
        return call.say(_audit(broken))
    if asked.has("--configure"):
        return _configure(call, broken)
    shapes = {"-l": "${db:Status-Abbrev}${Package} ${Version}\\n", "-s": "Package: ${Package}\\nStatus: ${Status}\\n"}
    shape = next((shapes[flag] for flag in shapes if asked.has(flag)), "")
    if not shape:
        return call.warn("dpkg: SIMULATED hosts do not know this action", 2)
    return await dpkg_query(call.like(("dpkg-query", "-W", "-f", shape, *asked.rest)))


def _configure(call: Call, broken: dict[str, Installed]) -> int:
    """Finish what was begun."""
    packages = call.host.packages
    if packages.locked_by:
        return call.warn(_LOCKED, 2)
    for name, one in broken.items():
        call.say(f"Setting up {name} ({one.version}) ...\n")
        packages.put(name, one.version)
        installs.configure(call.host, name)
    return 0


def _audit(broken: dict[str, Installed]) -> str:
    if not broken:
        return ""
    head = (
        "The following packages have been unpacked but not yet configured.\n"
        "They must be configured using dpkg --configure or the configure\nmenu option in dselect for them to work:\n"
    )
    return head + "".join(f" {name:<20} SIMULATED\n" for name in broken)


@program("apt-mark")
async def apt_mark(call: Call) -> int:
    """Hold packages, let them go, list them."""
    action, *names = [word.removesuffix(f":{NATIVE}") for word in call.args if not word.startswith("-")]
    packages = call.host.packages
    if action == "showhold":
        return call.say("".join(f"{name}\n" for name, one in sorted(packages.installed.items()) if one.held))
    if not call.root:
        return call.warn("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)", 100)
    unknown = [name for name in names if name not in packages.installed and not packages.offers(name)]
    if unknown:
        return call.warn(f"E: Unable to locate package {unknown[0]}\nE: No packages found", 100)
    held = action == "hold"
    if packages.locked_by and any(
        name not in packages.installed or packages.installed[name].held != held for name in names
    ):
        failed = (
            "E: Sub-process dpkg --set-selections returned an error code (2)\nE: Executing dpkg failed. Are you root?"
        )
        return call.warn(f"{_LOCKED}\n{failed}", 100)
    for name in names:
        if name not in packages.installed:
            packages.installed[name] = Installed("", state="n")
        done = packages.hold(name, held=held)
        if held:
            call.say(f"{name} {'set on hold' if done else 'was already set on hold'}.\n")
        else:
            call.say(f"{'Canceled hold on ' + name if done else name + ' was already not on hold'}.\n")
    return 0


@program("apt-cache")
async def apt_cache(call: Call) -> int:
    """Say what the fetched lists offer."""
    action, *names = [word for word in call.args if not word.startswith("-")]
    packages = call.host.packages
    status = 0
    for name in names:
        offers = packages.offers(name)
        if action == "madison":
            for offer in offers:
                origin = next(f"{repo.uri} {repo.suite}/" for repo in packages.lists.values() if offer in repo.offers)
                call.say(f"{name:>10} | {offer.version} | {origin} Packages\n")
        elif action == "policy" and (offers or name in packages.installed):
            have = packages.installed.get(name)
            candidate = offers[0].version if offers else have.version if have else "(none)"
            call.say(f"{name}:\n  Installed: {have.version if have else '(none)'}\n  Candidate: {candidate}\n")
        elif action == "show" and not offers:
            status = call.warn("E: No packages found", 100)
    return status


@program("gpg", needs=("gpg",))
async def gpg(call: Call) -> int:
    """Show a key file's keys, or take its armour off."""
    asked = parse(
        call.args,
        flags="--show-keys --with-colons --dearmor --batch --yes --no-tty --quiet -q --import --no-default-keyring",
        values="-o --output --homedir --keyring",
    )
    path = asked.rest[0] if asked.rest else "-"
    found = await call.stdin.read() if path == "-" else content(call, path)
    if isinstance(found, str):
        return call.warn(f"gpg: can't open '{path}': {found}", 2)
    keys = fingerprints(found)
    if not keys:
        return call.warn("gpg: no valid OpenPGP data found.", 2)
    if asked.has("--dearmor"):
        bare = b"".join(bytes(key) for key in Cert.split_bytes(found))
        target = asked.value("-o", "--output")
        if target:
            call.host.files.write(target, bare)
        else:
            call.out(bare)
        return 0
    for key in Cert.split_bytes(found):
        until = str(int(key.expiration.timestamp())) if key.expiration else ""
        expired = bool(until) and int(until) < call.host.now()
        identity = key.fingerprint.upper()
        call.say(f"pub:{'e' if expired else '-'}:256:22:{identity[-16:]}:1487788586:{until}::-:::scESCA::::::23::0:\n")
        call.say(f"fpr:::::::::{identity}:\nuid:-::::1487792064::SIMULATED::SIMULATED key::::::::::0:\n")
    return 0
