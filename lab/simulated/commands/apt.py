"""apt-get: fetch lists, install, upgrade, remove; in the words of the real one where somebody reads them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from urllib.parse import urlsplit

from lab.simulated import installs
from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.packages import Action, AptFailed, Source, read_sources, split
from lab.simulated.proxies import apt_settings, by_apt
from lab.simulated.versions import compare

_FLAGS = (
    "-y -q -qq -f -s --yes --quiet --no-install-recommends --allow-downgrades --allow-change-held-packages --purge "
    "--allow-unauthenticated --fix-broken --reinstall --download-only --only-upgrade --no-upgrade --assume-yes --no-remove"
)
_UPDATE, _UNPACK, _CONFIGURE, _PER_MEGABYTE = 3.0, 0.8, 0.5, 0.08  # seconds; of the transcripts
_UNPACKED = 4  # times its archive's size is what a package takes on the disk
_LOCK = "/var/lib/dpkg/lock-frontend"


@program("apt-get")
async def apt_get(call: Call) -> int:
    """Fetch lists, install, upgrade or remove."""
    asked = parse(call.args, flags=_FLAGS, values="-o -t -c --option --format")
    action, *names = asked.rest or [""]
    conflict = _conflicting(call)  # apt reads all its sources before anything else
    if conflict or action == "indextargets":
        return _listed(call, conflict)
    if asked.unknown or not call.root:
        option = f"E: Command line option {asked.unknown[:1]} is not understood in SIMULATED apt"
        denied = f"E: Could not open lock file {_LOCK} - open (13: Permission denied)"
        return call.warn(option if asked.unknown else denied, 100)
    options = dict(value.split("=", 1) for value in asked.values.get("-o", []) if "=" in value)
    if action == "update":
        return await _update(call, options)
    if not asked.has("-s") and not await _lock(call, float(options.get("DPkg::Lock::Timeout", "0"))):
        who = call.host.packages.locked_by
        call.warn(f"E: Could not get lock {_LOCK}. It is held by process 1234 ({who})")
        return call.warn(f"E: Unable to acquire the dpkg frontend lock ({_LOCK}), is another process using it?", 100)
    if action in ("install", "upgrade", "dist-upgrade", "full-upgrade"):
        return await _change(call, asked, action, names)
    return call.warn(f"E: Invalid operation {action}", 100)


@program("apt-config")
async def apt_config(call: Call) -> int:
    """Show apt's settings about proxies, as a shell's assignments."""
    have = apt_settings(call.host.files)
    if call.args[:1] != ("shell",):
        return call.not_simulated()
    pairs = zip(call.args[1::2], call.args[2::2], strict=False)
    return call.say("".join(f"{name}='{have[key]}'\n" for name, key in pairs if have.get(key)))


def _listed(call: Call, conflict: str) -> int:
    """Name the sites of all sources, or say why they cannot be read."""
    if conflict:
        return call.warn(f"{conflict}\nE: The list of sources could not be read.", 100)
    sites = {str(urlsplit(source.uri).hostname) for source in read_sources(call.host.files)}
    return call.say("".join(f"{site}\n" for site in sorted(sites)))


def _conflicting(call: Call) -> str:
    """Return apt's words where one source is named twice with two keys; empty where none is."""
    keys: dict[tuple[str, str], str] = {}
    for source in read_sources(call.host.files):
        where = (source.uri.rstrip("/"), source.suite)
        other = keys.setdefault(where, source.signed_by)
        if other != source.signed_by:
            place = f"{where[0]}/ {source.suite}"
            return f"E: Conflicting values set for option Signed-By regarding source {place}: {other} != {source.signed_by}"
    return ""


async def _lock(call: Call, limit: float) -> bool:
    """Wait for dpkg's lock as long as asked; say whether it is free."""
    waited = 0.0
    while call.host.packages.locked_by and waited < limit:
        await call.took(5)
        waited += 5
    return not call.host.packages.locked_by


async def _update(call: Call, options: dict[str, str]) -> int:
    only = options.get("Dir::Etc::sourcelist")
    if only and options.get("Dir::Etc::sourceparts") not in ("-", "/dev/null"):
        only = None
    await call.took(_UPDATE)
    before = set(call.host.packages.lists)
    kind = "E" if options.get("APT::Update::Error-Mode") == "any" else "W"
    errors: list[str] = []
    kept = False  # apt says once that older lists stay in use
    number = count(1)
    for source, error in call.host.packages.fetch(only):
        where, index = f"{source.uri} {source.suite}", "InRelease"
        if error.startswith("404"):  # then apt looks for an older form
            call.say(f"Ign:{next(number)} {where} {index}\n")
            index = "Release"
        said = f"\n  {error}" if error else ""
        call.say(f"{'Err' if error else 'Get'}:{next(number)} {where} {index}{said}\n")
        if error:
            errors += _why(source, error, kind, known=(source.uri, source.suite) in before)
            kept = kept or ": Failed to fetch" in errors[-1]
    call.say("Reading package lists...\n")
    if kept:
        errors.append(f"{kind}: Some index files failed to download. They have been ignored, or old ones used instead.")
    for line in errors:
        call.warn(line)
    return 100 if any(line.startswith("E:") for line in errors) else 0


def _why(source: Source, error: str, kind: str, *, known: bool) -> list[str]:
    """Return what is said of a source that failed; `known`: its lists were fetched before, and stay."""
    where = f"{source.uri} {source.suite}"
    folder = f"{source.uri}/{'' if source.suite.endswith('/') else 'dists/'}{source.suite.rstrip('/')}"
    fetched = f"{kind}: Failed to fetch {folder}/InRelease  {error}"
    if error.startswith("404"):
        return [f"E: The repository '{where} Release' does not have a Release file."]
    if error.startswith("403"):
        signed = "no longer signed" if known else "not signed"
        return [fetched.replace("W:", "E:", 1), f"E: The repository '{where} InRelease' is {signed}."]
    if "NO_PUBKEY" not in error:
        return [fetched]
    if known:
        kept = "The repository is not updated and the previous index files will be used."
        head = f"W: An error occurred during the signature verification. {kept} "
        return [f"{head}GPG error: {where} InRelease: {error}", fetched]
    return [f"W: GPG error: {where} InRelease: {error}", f"E: The repository '{where} InRelease' is not signed."]


async def _change(call: Call, asked: Parsed, action: str, names: Sequence[str]) -> int:
    packages = call.host.packages
    call.say("Reading package lists...\nBuilding dependency tree...\nReading state information...\n")
    try:
        if action == "install":
            plan = packages.plan(
                names, downgrade=asked.has("--allow-downgrades"), change_held=asked.has("--allow-change-held-packages")
            )
        else:
            plan = packages.upgrades()
    except AptFailed as error:
        *before, last = str(error).splitlines()
        if before:
            call.say("\n".join(before) + "\n")
        return call.warn(last, 100)
    _tell(call, plan)
    if plan.removed and asked.has("--no-remove"):
        return call.warn("E: Packages need to be removed but remove is disabled.", 100)
    if asked.has("-s"):
        return _simulate(call, plan)
    for name in plan.removed:
        _remove(call, [name])
    missing = [offer for offer in plan.all.values() if not _fetchable(call, offer.name)]
    if missing:
        uri = next(repo.uri for repo in packages.lists.values() if missing[0] in repo.offers)
        call.warn(f"E: Failed to fetch {uri}/{missing[0].name}_{missing[0].version}_amd64.deb  Could not connect")
        return call.warn("E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?", 100)
    size = sum(offer.size for offer in plan.all.values())
    if size > call.host.free_kib * 1024:
        return call.warn("E: You don't have enough free space in /var/cache/apt/archives/.", 100)
    await call.took(size / 1e6 * _PER_MEGABYTE)
    return await _unpack(call, plan)


def _simulate(call: Call, plan: Action) -> int:
    """Say what would be done, one line each, in the words of `apt-get -s`."""
    installed = call.host.packages.installed
    for name in plan.removed:
        call.say(f"Remv {name} [{installed[name].version}]\n")
    for name, offer in plan.all.items():
        old = f"[{installed[name].version}] " if name in plan.changed else ""
        call.say(f"Inst {name} {old}({offer.version} SIMULATED [{split(name)[1]}])\n")
    for name, offer in plan.all.items():
        call.say(f"Conf {name} ({offer.version} SIMULATED [{split(name)[1]}])\n")
    return 0


def _fetchable(call: Call, name: str) -> bool:
    packages = call.host.packages
    return any(
        packages.world.answers(repo.uri, by_apt(call.host.files, repo.uri))
        for repo in packages.lists.values()
        for offer in repo.offers
        if offer.name == name
    )


def _tell(call: Call, plan: Action) -> None:
    """Print what is going to happen, in apt's sections."""
    for name in plan.already:
        if name in plan.named:
            version = call.host.packages.installed[name].version
            call.say(f"{name} is already the newest version ({version}).\n")
    extra = sorted(name for name in plan.new if name not in plan.named)
    newer = [n for n, o in plan.changed.items() if compare(o.version, call.host.packages.installed[n].version) > 0]
    older = [name for name in plan.changed if name not in newer]
    for title, found in (
        ("The following packages will be REMOVED:", list(plan.removed)),
        ("The following additional packages will be installed:", extra),
        ("The following NEW packages will be installed:", sorted(plan.new)),
        ("The following packages have been kept back:", list(plan.kept)),
        ("The following packages will be upgraded:", newer),
        ("The following packages will be DOWNGRADED:", older),
    ):
        if found:
            call.say(f"{title}\n{_wrapped(found)}")
    counts = f"{len(newer)} upgraded, {len(plan.new)} newly installed, "
    down = f"{len(older)} downgraded, " if older else ""
    call.say(f"{counts}{down}{len(plan.removed)} to remove and {len(plan.kept)} not upgraded.\n")


def _wrapped(names: Sequence[str]) -> str:
    """Return names in lines of at most 80 columns, indented by two, as apt does."""
    lines, line = [], " "
    for name in names:
        if len(line) + 1 + len(name) > 79 and line.strip():
            lines.append(line)
            line = " "
        line += f" {name}"
    return "\n".join([*lines, line]) + "\n"


def _no_room(call: Call, name: str, file: str) -> int:
    """Say in dpkg's and apt's words that a package did not fit on the disk."""
    call.warn(f"dpkg: error processing archive /var/cache/apt/archives/{file} (--unpack):")
    what = f"'./usr/share/doc/{name}/copyright' to '/usr/share/doc/{name}/copyright.dpkg-new'"
    call.warn(f" cannot copy extracted data for {what}: failed to write (No space left on device)")
    call.warn(f"Errors were encountered while processing:\n /var/cache/apt/archives/{file}")
    return call.warn("E: Sub-process /usr/bin/dpkg returned an error code (1)", 100)


async def _unpack(call: Call, plan: Action) -> int:
    """Unpack all, then configure all: what is cut short in between leaves packages unpacked."""
    packages = call.host.packages
    for name, offer in plan.all.items():
        before = packages.installed.get(name)
        if before is None or before.state in "cn":
            call.say(f"Selecting previously unselected package {name}.\n")
        file = f"{name}_{offer.version.replace(':', '%3a')}_amd64.deb"
        call.say(f"Preparing to unpack .../{file} ...\n")
        over = f" over ({before.version})" if before and before.state == "i" else ""
        call.say(f"Unpacking {name} ({offer.version}){over} ...\n")
        call.host.free_kib -= offer.size * _UNPACKED // 1024
        if call.host.free_kib <= 0:
            call.host.free_kib = 0
            return _no_room(call, name, file)
        packages.put(name, offer.version, "U")
        await call.took(_UNPACK)
    for name, offer in plan.all.items():
        call.say(f"Setting up {name} ({offer.version}) ...\n")
        await call.took(_CONFIGURE)
        packages.put(name, offer.version)
        for line in installs.configure(call.host, name):
            call.warn(line)
    if plan.all:
        call.host.changed()
    return 0


def _remove(call: Call, names: Sequence[str]) -> int:
    packages = call.host.packages
    for name in names:
        have = packages.installed[name]
        call.say(f"Removing {name} ({have.version}) ...\n")
        packages.put(name, have.version, "c")
        installs.remove(call.host, name)
    return 0
