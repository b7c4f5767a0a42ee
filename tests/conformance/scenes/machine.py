"""The scenes of what a host tells of itself, of files put in their place, and of apt's sources."""

from __future__ import annotations

from shipway.facts.commands import WATCHED
from shipway.host.command import File, place_files
from shipway.os.debian.apt import APT, APT_HELPER
from shipway.steps.system.sources import CURL, DIAL, script_of
from tests.conformance.actions import WRITE_SOURCES, befall, command
from tests.conformance.case import Case, Scene, case, script
from tests.places.facts import DEBIAN

ASK = script_of(DEBIAN)
CODE = (*CURL[:-1], "%{http_code}")  # what was recorded: the answer alone, without a proxy's
_STATE = ("stat", "-c", "%a|%U:%G|%F|%n", "--")
_SHOW = ("env", "TZ=UTC", "systemctl", "show", "-p", "Id,LoadState,ActiveState,SubState,Result", "--")
_WAITING = "systemd-run --collect --wait --unit=conformance --"
_STRICT = ("-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any")
_GOOD = "/etc/apt/sources.list.d/shipway-kubernetes.list"
_BAD = "/etc/apt/conformance"
_ROOM = "/tmp/conformance-files"


def _placed(*files: tuple[str, bytes, str]) -> tuple[tuple[str, ...], ...]:
    wanted = [File(f"{_ROOM}/{name}", content, mode) for name, content, mode in files]
    return tuple(command.bounded() for command, _ in place_files(wanted))


def _update(name: str, path: str, *options: str, host: str = "w1") -> Case:
    only = ("-o", f"Dir::Etc::sourcelist={path}", "-o", "Dir::Etc::sourceparts=-")
    return Case(name, host, (*APT, *only, *options, "update"))


FILES: Scene = (
    script(
        "a file put in its place",
        "w1",
        *_placed(("new/file", b"hello\n", "640")),
        after=((*_STATE, f"{_ROOM}/new", f"{_ROOM}/new/file"), ("cat", "--", f"{_ROOM}/new/file")),
        feed=b"hello\nwhole\n",
    ),
    script(
        "a file whose input is cut short stays out of its place",
        "w1",
        *_placed(("new/file", b"hello again\n", "640")),
        after=(("cat", "--", f"{_ROOM}/new/file"),),
        feed=b"hello ag",
    ),
    script(
        "what an earlier run left, and a folder that is a file",
        "w1",
        ("ln", "-s", "/nowhere", f"{_ROOM}/left"),
        ("make_room", f"{_ROOM}/left"),
        ("ls", "-1A", "--", _ROOM),
        ("make_room", f"{_ROOM}/new/file/below"),
    ),
    # The next two are answers of Debian 12's sed 4.9-1 itself, recorded without a lab.
    case("lines from one pattern to another", "w1", "sed -n /^hello/,/^-----END/p", f"{_ROOM}/new/file"),
    case("sed of nothing", "w1", "sed -n /^-----BEGIN/,/^-----END/p /nosuch"),
    case("make_room is no program", "w1", "timeout -k 5 20 make_room /tmp/a"),
    case("was_whole is no program", "w1", "timeout -k 5 20 was_whole"),
    script(
        "two files of one input, an empty one between",
        "w1",
        *_placed(("first", b"first\n", "644"), ("a/empty", b"", "600"), ("b/second", b"second, and longer\n", "644")),
        after=(
            ("cat", "--", f"{_ROOM}/first"),
            ("cat", "--", f"{_ROOM}/b/second"),
            (*_STATE, f"{_ROOM}/a/empty", f"{_ROOM}/a"),
        ),
        feed=b"first\nwhole\nwhole\nsecond, and longer\nwhole\n",
    ),
    script(
        "an input that is too short",
        "w1",
        ("dd", "bs=10", "count=1", "iflag=fullblock", f"of={_ROOM}/short", "status=none"),
        after=(("cat", "--", f"{_ROOM}/short"),),
        feed=b"abcd",
    ),
    script(
        "what umask does to new files and folders",
        "w1",
        ("umask",),
        ("umask", "077"),
        ("umask",),
        ("mkdir", "-p", "--", f"{_ROOM}/private/below"),
        ("dd", "count=0", f"of={_ROOM}/private/file", "status=none"),
        ("umask", "022"),
        ("mkdir", "--", f"{_ROOM}/open"),
        ("dd", "count=0", f"of={_ROOM}/open/file", "status=none"),
        after=(
            (*_STATE, f"{_ROOM}/private", f"{_ROOM}/private/below", f"{_ROOM}/private/file"),
            (*_STATE, f"{_ROOM}/open", f"{_ROOM}/open/file"),
        ),
    ),
    script("the umask of the next script", "w1", ("umask",)),
    case("umask is no program", "w1", "timeout -k 5 20 umask"),
    script(
        "a script ends where one fails, and nothing looks", "w1", ("true",), ("false",), ("true",), after=(("true",),)
    ),
    script(
        "every look looks, whatever the one before says",
        "w1",
        ("true",),
        after=(("cat", "/nosuch"), ("cat", "/nosuch2"), ("true",)),
    ),
    script(
        "chmod, and what it leaves",
        "w1",
        ("chmod", "600", f"{_ROOM}/first"),
        ("chmod", "0755", f"{_ROOM}/second"),
        after=((*_STATE, f"{_ROOM}/first", f"{_ROOM}/second"),),
    ),
    case("chmod of nothing", "w1", "chmod 600 /nosuch"),
    case("chmod without a file", "w1", "chmod 600"),
    command("w1", "rm", "-rf", "--", _ROOM),
)

MACHINE: Scene = (
    case("the clock", "w1", "timeout -k 5 20 date +%s.%N", reduce="clock"),
    case("a user", "w1", "timeout -k 5 20 getent passwd ops"),
    case("two users, one by number", "w1", "getent passwd root 1000"),
    case("a user who is not there", "w1", "timeout -k 5 20 getent passwd nosuch"),
    case("CPUs", "w1", "timeout -k 5 20 nproc", reduce="number"),
    case("the machine's kind", "w1", "timeout -k 5 20 uname -m"),
    case("the kernel's release", "w1", "timeout -k 5 20 uname -r", reduce="release"),
    case("room for the kubelet", "w1", "timeout -k 5 20 df -Pk /var/lib", reduce="room"),
    case("room on several disks, one of nothing", "w1", "timeout -k 5 20 df -P / /nosuch /var/lib", reduce="room"),
    case("room on nothing", "w1", "df -P /nosuch /nosuch2"),
    case("addresses", "w1", "timeout -k 5 20 ip -o -4 addr show", reduce="addresses"),
    case("deleting an interface that is not there", "w1", "ip link delete cni0"),
    case("ports of a bare host", "w1", "timeout -k 5 20 ss -Hltnp", reduce="ports"),
    befall("w1", "port-taken"),
    case("ports when one is taken", "w1", "timeout -k 5 20 ss -Hltnp", reduce="ports"),
    befall("w1", "port-free"),
    case("ports when it is free again", "w1", "timeout -k 5 20 ss -Hltn", reduce="ports"),
    case("what is forwarded", "w1", "timeout -k 5 20 iptables -S FORWARD", reduce="policies"),
    case("the nat table", "w1", "timeout -k 5 20 iptables -t nat -S", reduce="policies"),
    Case("a connection by bash", "w1", ("bash", "-c", DIAL, "127.0.0.1", "22")),
    Case("a connection by bash that is refused", "w1", ("bash", "-c", DIAL, "127.0.0.1", "9")),
    Case("a program that is watched", "w1", ("bash", "-c", WATCHED, "30", "35", "nvidia-smi", "-L")),
    Case("a watched program that is not there", "cp1", ("bash", "-c", WATCHED, "30", "35", "nvidia-smi", "-L")),
    Case("a watched program that does not end", "w1", ("bash", "-c", WATCHED, "1", "6", "sleep", "20")),
    case("cloud-init where there is none", "w1", "timeout -k 5 20 cloud-init status"),
    case("a host name that is not given", "w1", "hostnamectl set-hostname"),
    script(
        "a new host name, and what it leaves",
        "w1",
        ("timeout", "-k", "10", "60", "hostnamectl", "set-hostname", "--", "conformance"),
        after=(("cat", "/proc/sys/kernel/hostname"), ("cat", "/etc/hostname"), ("hostnamectl", "--static")),
    ),
    command("w1", "hostnamectl", "set-hostname", "--", "w1"),
    command("w1", "systemctl", "reset-failed"),
    case("the system when all is well", "w1", "timeout -k 5 20 systemctl is-system-running"),
    command("w1", "systemd-run", "--quiet", "--wait", "--unit=conformance-failing", "--", "false"),
    case("the system when a unit failed", "w1", "timeout -k 5 20 systemctl is-system-running"),
    case("the unit that failed", "w1", " ".join(_SHOW), "conformance-failing.service"),
    command("w1", "systemctl", "reset-failed", "conformance-failing"),
    case("the system when that is forgotten", "w1", "timeout -k 5 20 systemctl is-system-running"),
    command("w1", "systemd-run", "--quiet", "--unit=conformance-sleep", "--", "sleep", "60"),
    case("the unit that runs", "w1", " ".join(_SHOW), "conformance-sleep.service"),
    case("systemctl stop", "w1", "systemctl stop conformance-sleep"),
    case("the unit that was stopped", "w1", " ".join(_SHOW), "conformance-sleep.service"),
    case("systemctl stop of what is stopped", "w1", "systemctl stop conformance-sleep"),
    case("an operation that was good", "w1", f"{_WAITING} true", reduce="ended"),
    case("an operation that failed", "w1", f"{_WAITING} sh -c", "exit 7", reduce="ended"),
    case(
        "an operation out of time",
        "w1",
        f"{_WAITING.replace('--unit', '-p RuntimeMaxSec=1 --unit')} sleep 20",
        reduce="ended",
    ),
    case("an operation that is stopped from outside", "w1", f"{_WAITING} systemctl stop conformance", reduce="ended"),
)

SOURCES: Scene = (
    WRITE_SOURCES,
    _update("lists of a good source", _GOOD, *_STRICT),
    _update("lists where nobody listens", f"{_BAD}/closed.list", *_STRICT),
    _update("lists where nobody listens, for a warning", f"{_BAD}/closed.list"),
    _update("lists where nothing is", f"{_BAD}/absent.list", *_STRICT),
    _update("lists whose key is not there any more", f"{_BAD}/changed.list", *_STRICT),
    _update("lists whose key was never there", f"{_BAD}/unknown.list", *_STRICT, host="cp1"),
    befall("w1", "packages-403"),
    _update("lists that are refused", _GOOD, *_STRICT),
    _update("lists that are refused, never fetched before", f"{_BAD}/unknown.list", *_STRICT, host="cp1"),
    case(
        "a key that is refused", "w1", f"{APT_HELPER} download-file {{packages}}/Release.key /tmp/key", reduce="errors"
    ),
    Case("an address that is refused", "w1", (*CODE, "{packages}/Release")),
    befall("w1", "packages-ok"),
    case(
        "a key that is not there", "w1", f"{APT_HELPER} download-file {{packages}}/nosuch.key /tmp/key", reduce="errors"
    ),
    _update("lists of the good source again", _GOOD, *_STRICT),
    Case("an upgrade of what is new already", "w1", (*APT, "upgrade"), reduce="counts"),
    Case("an address that the host fills in", "w1", ("bash", "-c", ASK, "{packages}/Release#{arch}", "direct", *CODE)),
    Case("one that is not there", "w1", ("bash", "-c", ASK, "{packages}/{os}/{codename}", "direct", *CODE)),
    befall("w1", "locked"),
    case("apt-get beside another package manager", "w1", "apt-get -y -q install nosuchpackage"),
    _update("lists beside another package manager", _GOOD, *_STRICT),
    case("apt-mark beside another package manager", "w1", "apt-mark unhold kubelet"),
    case("dpkg beside another package manager", "w1", "dpkg --configure -a"),
    befall("w1", "unlocked"),
    case("a hold that stayed", "w1", "apt-mark hold kubelet"),
    case("dpkg when it is alone again", "w1", "dpkg --configure -a"),
    command("w1", "rm", "-rf", "--", _BAD),
    command("cp1", "rm", "-rf", "--", _BAD),
)
