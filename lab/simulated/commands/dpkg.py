"""dpkg-query, dpkg, apt-mark and apt-cache: what is installed, held and offered."""

from __future__ import annotations

from lab.simulated import installs
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.packages import NATIVE, Installed, split

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
    """Audit, finish what was begun, or say the architecture."""
    asked = parse(call.args, flags="--audit --configure -a --force-confdef --force-confold --print-architecture")
    packages = call.host.packages
    if asked.has("--print-architecture"):
        return call.say("amd64\n")
    broken = {name: one for name, one in packages.installed.items() if one.state in "UF"}
    if asked.has("--audit"):
        return call.say(_audit(broken))
    if asked.has("--configure"):
        return _configure(call, broken)
    return call.not_simulated()


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
    """Say what the fetched lists offer, as madison does."""
    action, *names = call.args
    if action != "madison":
        return call.not_simulated()
    packages = call.host.packages
    for name in names:
        for offer in packages.offers(name):
            origin = next(f"{repo.uri} {repo.suite}/" for repo in packages.lists.values() if offer in repo.offers)
            call.say(f"{name:>10} | {offer.version} | {origin} Packages\n")
    return 0
