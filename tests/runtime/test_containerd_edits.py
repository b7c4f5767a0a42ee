"""containerd's file has other owners: only our own keys are set in it, and where that is not safe nothing is."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import tomli_w

from lab.simulated import containerd
from lab.simulated.options import Options
from shipway.edits.containerd import CONFIG, Wanted, differences, edit_config
from shipway.edits.toml import NotEditableError, with_settings
from shipway.errors import Permanent
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.facts.services import UnitState
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.host.session import Command, Host
from shipway.step import Impact
from shipway.steps.runtime.containerd import DEFAULT, METADATA, ContainerdConfigured, ContainerdLoaded
from shipway.steps.runtime.pause_image import DUMP
from tasks.stages import container_runtime
from tests.places.facts import DEBIAN, KnownFacts, said, unit
from tests.places.simulated import failed, simulated_place

WANTED = Wanted("registry.k8s.io/pause:3.10", runtime=NVIDIA.runtime)
V2 = """# the site's own
version = 2
root = "/data/nvme0/containerd"  # NVMe
imports = ["/etc/containerd/site.d/*.toml"]

[proxy_plugins.nydus]
type = "snapshot"
address = "/run/nydus/nydus.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "nydus"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
      runtime_type = "io.containerd.kata.v2"
      options = { ConfigPath = "/opt/kata.toml" }
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      options = { SystemdCgroup = false, Root = "/run/runc" }
"""
V3 = (
    V2.replace("version = 2", "version = 3")
    .replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
    .replace('  sandbox_image = "registry.k8s.io/pause:3.9"\n', "")
)
RELEASES = {2: "1.7.27", 3: "2.1.5", 4: "2.3.1"}


def default(layout: int) -> str:
    """Return what `containerd config default` prints where this layout is the newest."""
    return tomli_w.dumps(containerd.default(RELEASES[layout]))


# A containerd reads layouts that are older than its own, and none that is newer.
@pytest.mark.parametrize(("layout", "daemon"), [(2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (4, 4)])
def test_root_runtimes_snapshotters_and_imports_of_others_stay_and_our_keys_are_set(layout: int, daemon: int) -> None:
    text = V2 if layout == 2 else V3.replace("version = 3", f"version = {layout}")
    made = edit_config(text, default(daemon), WANTED)
    changed = [line for line in text.splitlines() if line not in made.splitlines()]
    assert all("SystemdCgroup" in line or "sandbox_image" in line for line in changed), changed
    data = tomllib.loads(made)
    plugin = data["plugins"]["io.containerd.grpc.v1.cri" if layout == 2 else "io.containerd.cri.v1.runtime"]
    assert data["root"] == "/data/nvme0/containerd"
    assert plugin["containerd"]["runtimes"]["kata"]["options"] == {"ConfigPath": "/opt/kata.toml"}
    assert plugin["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": True, "Root": "/run/runc"}
    assert plugin["containerd"]["snapshotter"] == "nydus"
    assert edit_config(made, default(daemon), WANTED) == made


@pytest.mark.parametrize("layout", [2, 3, 4])
@pytest.mark.parametrize(
    "text", ["", '#root = "/x"\ndisabled_plugins = ["cri"]\n', 'root = "/data"\n[grpc]\nuid = 0\n']
)
def test_a_file_without_a_layout_gets_the_one_of_its_containerd(text: str, layout: int) -> None:
    made = tomllib.loads(edit_config(text, default(layout), WANTED))
    assert made["version"] == layout
    assert made.get("root", "/data") == "/data"
    assert made.get("disabled_plugins", []) == []
    whole = containerd.merged(containerd.default(RELEASES[layout]), made)
    assert differences(tomli_w.dumps(whole), WANTED) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[plugins.cri]\nsandbox_image = "x"\n', "layout 1"),
        ('disabled_plugins = ["cri", "btrfs"]\n', "layout 1"),
        ("version = 9\n", "version 9"),
        ("version = 2\n[", "not TOML"),
        (
            V2 + '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["http://m"]\n',
            "docker.io",
        ),
        (V2 + '[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".tls]\nca_file = "/c"\n', "r.example"),
        ('version = 2\nplugins."io.containerd.grpc.v1.cri".containerd.snapshotter = "x"\n', "not"),
    ],
)
async def test_what_cannot_be_edited_safely_is_left_as_it_is_and_said(text: str, why: str) -> None:
    facts: dict[Fact[Any], Any] = {
        DEFAULT: said(default(2)),
        FileText(CONFIG): text,
        FileState("/usr/bin/nvidia-container-runtime"): FileInfo("0" * 64, "755", "root:root", 1),
    }
    host = KnownFacts(facts)
    with pytest.raises(Permanent, match="left as it is") as refused:
        await ContainerdConfigured(WANTED).apply(cast("Host", host))
    assert refused.value.code == "SHW-332"
    assert why in refused.value.message
    assert (host.written, host.done) == ({}, [])


def test_registry_credentials_stay_beside_the_registry_folder() -> None:
    auth = '[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".auth]\nusername = "u"\n'
    assert auth in edit_config(V2 + auth, default(2), WANTED)


@pytest.mark.parametrize("daemon", [2, 3])
def test_the_cni_folder_is_set_as_each_layout_of_the_file_has_it(daemon: int) -> None:
    """In a file of layout 2 every containerd takes `bin_dir`; 2.1.9 makes its list of it, of an empty one too."""
    for layout, plugin in ((2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.runtime")):
        if layout > daemon:
            continue  # containerd 1.x refuses to start on it
        text = f'version = {layout}\n[plugins."{plugin}".cni]\nbin_dir = "/usr/lib/cni"\n'
        made = tomllib.loads(edit_config(text, default(daemon), WANTED))["plugins"][plugin]["cni"]
        expected = {"bin_dir": "/opt/cni/bin"} if layout == 2 else {"bin_dir": "", "bin_dirs": ["/opt/cni/bin"]}
        assert made == {"conf_dir": "/etc/cni/net.d", **expected}


def test_a_file_of_layout_2_says_what_is_wanted_to_a_containerd_of_layout_3() -> None:
    """Debian ships such a file with containerd 2.1: the daemon's own dump must show what was asked for."""
    text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n'
    made = containerd._migrated(tomllib.loads(edit_config(text, default(3), WANTED)))
    dump = containerd.merged(containerd.default("2.1.9"), {**made, "version": 3})
    assert differences(tomli_w.dumps(dump), WANTED) == []


async def test_a_drop_in_that_has_the_last_word_is_named_and_nothing_is_written() -> None:
    made = edit_config(V2, default(2), WANTED)
    dump = tomli_w.dumps(containerd.merged(tomllib.loads(made), {"imports": [CONFIG, "/etc/containerd/site.d/9.toml"]}))
    facts: dict[Fact[Any], Any] = {
        DEFAULT: said(default(2)),
        DUMP: said(dump),
        FileText(CONFIG): made,
        FileState("/usr/bin/nvidia-container-runtime"): FileInfo("0" * 64, "755", "root:root", 1),
    }
    host = KnownFacts(facts)
    with pytest.raises(Permanent) as refused:
        await ContainerdConfigured(WANTED).apply(cast("Host", host))
    assert (refused.value.code, host.written) == ("SHW-333", {})
    assert "/etc/containerd/site.d/9.toml" in refused.value.fix


@pytest.mark.parametrize(
    ("root", "restarted"), [("/var/lib/containerd", True), ("/data/nvme0/containerd", False), (None, True)]
)
async def test_containerd_is_never_restarted_into_another_root(root: str | None, *, restarted: bool) -> None:
    facts: dict[Fact[Any], Any] = {
        DUMP: said(tomli_w.dumps({"version": 2, "root": "/var/lib/containerd"})),
        **({Listing(f"{root}/{METADATA}"): ("meta.db",)} if root else {}),
        UnitState("containerd.service"): unit("active" if root else "inactive"),
    }
    host, step = KnownFacts(facts), ContainerdLoaded("containerd", (CONFIG,))
    if restarted:
        await step.apply(cast("Host", host))
        assert host.done[-1] == "systemctl restart containerd"
        return
    with pytest.raises(Permanent) as refused:
        await step.apply(cast("Host", host))
    assert (refused.value.code, host.done) == ("SHW-334", [])


async def test_a_host_whose_containerd_has_root_and_runtimes_of_its_own_keeps_them(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(scale=0.01)) as place:
        await place.prepare("te2")
        machine, session = place.machine("te2"), place.session("te2")
        own = (machine.files.text(CONFIG)).replace("k8s.gcr.io/pause", "k8s.gcr.io/pausing")
        layout = tomllib.loads(own)["version"]
        plugin = containerd.CRI2 if layout == 2 else containerd.RUNTIME
        kata = f'\n[plugins."{plugin}".containerd.runtimes.kata]\nruntime_type = "io.containerd.kata.v2"\n'
        machine.files.write(CONFIG, f'root = "/data/nvme0/containerd"\n{own}{kata}'.encode())
        await session.do(Command(("systemctl", "restart", "containerd")))
        machine.files.write(
            CONFIG, machine.files.text(CONFIG).replace("SystemdCgroup = true", "SystemdCgroup = false").encode()
        )
        before = machine.files.text(CONFIG)
        results = await place.run(
            container_runtime.steps(place.cluster, place.cluster.host("te2"), DEBIAN), "te2", Impact.FILES
        )
        assert machine.files.text(CONFIG) == before, "a repair that makes containerd restart is no repair of files"
        assert {result.outcome for result in results} <= {"ok", "drifted"}
        results = await place.run(
            container_runtime.steps(place.cluster, place.cluster.host("te2"), DEBIAN), "te2", Impact.SERVICE
        )
        assert not failed(results)
        data = tomllib.loads(machine.files.text(CONFIG))
        assert data["root"] == "/data/nvme0/containerd"
        assert "kata" in containerd.runtimes(data)
        assert machine.files.text(CONFIG).replace("SystemdCgroup = true", "SystemdCgroup = false") == before


def test_a_change_that_makes_containerd_restart_is_a_service() -> None:
    assert ContainerdConfigured.impact is Impact.SERVICE


@pytest.mark.parametrize(
    ("text", "path", "value", "made"),
    [
        ("a = 1 # x\r\nb = 2", ("a",), 3, "a = 3 # x\r\nb = 2"),
        ("a.b = [1, # ]\n 2]\nc = '''x\n[d]\n'''\n", ("a", "b"), [3], "a.b = [3]\nc = '''x\n[d]\n'''\n"),
        ("[t]\n  a = 1\n\n# end\n[u]\n", ("t", "b"), True, "[t]\n  a = 1\n  b = true\n\n# end\n[u]\n"),
        ("[t]\n[u]\nx = 1", ("t", "b"), "q\"'", '[t]\nb = "q\\"\'"\n[u]\nx = 1'),
        ("[u]\nx = 1", ("u", "y"), 2, "[u]\nx = 1\ny = 2\n"),
        ('["a.b"]\nx = "#"\n', ("a.b", "x"), "n", '["a.b"]\nx = "n"\n'),
        ("t = {a = 1}\n", ("t", "b", "c"), 2, "t = {a = 1, b = {c = 2}}\n"),
        ("# only\n", ("t", "a"), 1, "# only\n\n[t]\na = 1\n"),
        ("[t]\n", ("a",), 1, "a = 1\n[t]\n"),
    ],
)
def test_one_value_is_set_in_its_place(text: str, path: tuple[str, ...], value: object, made: str) -> None:
    assert with_settings(text, {path: value}) == made


@pytest.mark.parametrize("text", ["a = 1\n", "[[a]]\nx = 1\n", "a.x = 1\n"])
def test_what_is_no_table_is_not_made_one(text: str) -> None:
    with pytest.raises(NotEditableError):
        with_settings(text, {("a", "b"): 1, ("a", "x", "c"): 2})


@pytest.mark.skipif(shutil.which("containerd") is None, reason="needs a containerd of layout 2 (Debian 12's)")
@pytest.mark.parametrize(
    "text", ["", 'disabled_plugins = ["cri"]\n', V2.replace('imports = ["/etc/containerd/site.d/*.toml"]', "")]
)
def test_a_real_containerd_reads_what_was_edited(text: str, tmp_path: Path) -> None:
    def asked(*words: str) -> str:
        return subprocess.run(["containerd", *words], check=True, capture_output=True, text=True, timeout=60).stdout

    file = tmp_path / "config.toml"
    file.write_text(edit_config(text, asked("config", "default"), WANTED))
    assert differences(asked("--config", str(file), "config", "dump"), WANTED) == []
