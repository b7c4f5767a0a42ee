"""The parts of a simulated host: the wire format taken strictly, apt's and containerd's rules, the process."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
import tomli_w

from lab.simulated import containerd, recorded
from lab.simulated.control import ask
from lab.simulated.failures import Spec
from lab.simulated.files import FileTree
from lab.simulated.kernel import Kernel
from lab.simulated.kubeadm import texts
from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from lab.simulated.packages import AptFailed, Packages
from lab.simulated.site import site
from lab.simulated.systems import SYSTEMS, base_files
from lab.simulated.versions import order
from lab.simulated.wire import NotUnderstood, request, script, tokens
from shipway.cluster.profiles import profile_data
from shipway.edits.containerd import Wanted, differences, edit_config
from shipway.errors import LoginRefused
from shipway.facts.commands import Says
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.host.session import Command
from shipway.host.ssh import Pool
from shipway.script import READER, compose
from tests.places.simulated import simulated_place

ROOT = Path(__file__).parents[2]


def test_a_script_of_the_product_is_taken_apart_word_by_word() -> None:
    commands = [("cat", "--", "/a b"), ("printf", "%s", 'it\'s\n$(touch hurt) "x"\\'), ("true",)]
    text, boundary = compose(commands, verb="d")
    asked = request(f"sudo -n -- {READER}")
    assert (asked.sudo, asked.script) == (True, True)
    taken = script(text)
    assert taken.boundary == boundary
    assert [line.words for line in taken.lines] == commands
    assert {line.verb for line in taken.lines} == {"d"}


@pytest.mark.parametrize(
    "text",
    ["cat /etc/hosts | grep x", "echo $HOME", "a; b", "true && false", "cat < /x", "echo `id`", "(true)", "echo 'open"],
)
def test_what_a_shell_would_expand_is_refused_loudly(text: str) -> None:
    with pytest.raises(NotUnderstood):
        tokens(text)


def test_a_changed_prologue_is_refused() -> None:
    text, _ = compose([("true",)], verb="r")
    with pytest.raises(NotUnderstood, match="prologue"):
        script(text.replace("c=0", "c=1"))


def test_versions_sort_as_dpkg_sorts_them() -> None:
    wanted = ["1.0~rc1-1", "1.0-1", "1.0-1ubuntu1", "1.0.1-1", "1.2-1", "1.10-1", "1:0.1-1"]
    assert sorted({*wanted}, key=order) == wanted


def _packages() -> Packages:
    kernel = Kernel("5.15", "x")
    world = site(profile_data("seed"), SYSTEMS["ubuntu-22.04"]).world
    files = FileTree(base_files(SYSTEMS["ubuntu-22.04"]), kernel, time.time)
    packages = Packages(files, world)
    packages.lists = {(repo.uri, repo.suite): repo for repo in world.repositories}
    return packages


def test_the_toolkit_alone_in_an_old_version_cannot_be_installed_and_all_four_can() -> None:
    packages = _packages()
    with pytest.raises(AptFailed, match="unmet dependencies"):
        packages.plan(["nvidia-container-toolkit=1.17.8-1"], downgrade=True, change_held=True)
    names = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    plan = packages.plan([f"{name}=1.17.8-1" for name in names], downgrade=True, change_held=True)
    assert {offer.version for offer in plan.new.values()} == {"1.17.8-1"}


def test_held_and_older_packages_need_their_flags() -> None:
    packages = _packages()
    packages.put("containerd.io", "2.1.5-1")
    with pytest.raises(AptFailed, match="allow-downgrades"):
        packages.plan(["containerd.io=1.7.27*"], downgrade=False, change_held=True)
    packages.hold("containerd.io", held=True)
    with pytest.raises(AptFailed, match="allow-change-held"):
        packages.plan(["containerd.io=1.7.27*"], downgrade=True, change_held=False)
    with pytest.raises(AptFailed, match="was not found"):
        packages.plan(["kubelet=1.30.*"], downgrade=True, change_held=True)


def _tree(**texts: str) -> FileTree:
    files = FileTree({}, Kernel("5.15", "x"), time.time)
    for path, text in texts.items():
        files.write(path, text.encode())
    return files


@pytest.mark.parametrize(("version", "layout"), [("1.6.33", 2), ("1.7.27", 2), ("2.1.5", 3), ("2.3.1", 4)])
def test_what_the_product_renders_is_effective_in_every_layout(version: str, layout: int) -> None:
    wanted = Wanted("registry.k8s.io/pause:3.10", runtime=NVIDIA.runtime)
    text = edit_config("", tomli_w.dumps(containerd.default(version)), wanted)
    files = _tree(**{containerd.CONFIG: text})
    effective = containerd.effective(files, version)
    assert effective["version"] == layout
    assert differences(tomli_w.dumps(effective), wanted) == []
    assert set(containerd.runtimes(effective)) == {"runc", "nvidia"}


def test_a_drop_in_replaces_the_whole_plugin_in_old_containerd_and_merges_in_new() -> None:
    base = (
        '{v}imports = ["/etc/containerd/conf.d/*.toml"]\n'
        '[plugins."{p}".containerd.runtimes.runc.options]\nSystemdCgroup = true\n'
    )
    extra = '{v}[plugins."{p}".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n'
    for version, plugin, kept in (("1.7.27", containerd.CRI2, False), ("2.1.5", containerd.RUNTIME, True)):
        fill = {"v": f"version = {containerd.layout(version)}\n", "p": plugin}
        paths = {containerd.CONFIG: base.format(**fill), "/etc/containerd/conf.d/99-nvidia.toml": extra.format(**fill)}
        effective = containerd.effective(_tree(**paths), version)
        assert "nvidia" in containerd.runtimes(effective)
        assert containerd.runtimes(effective)["runc"]["options"]["SystemdCgroup"] is kept


def test_a_configuration_of_a_newer_layout_stops_containerd() -> None:
    with pytest.raises(containerd.BadConfig, match="unsupported config version"):
        containerd.effective(_tree(**{containerd.CONFIG: "version = 4\n"}), "1.7.27")


def test_a_specification_says_what_is_wrong_with_it() -> None:
    assert Spec.parse("te2,exit,match=apt-get install,nth=2").failure().nth == 2
    with pytest.raises(ValueError, match="HOST,KIND"):
        Spec.parse("te2")
    with pytest.raises(ValueError, match="known"):
        Spec.parse("te2,nosuch").failure()


@pytest.mark.long
async def test_a_thousand_hosts_start_and_answer(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(hosts=1000, scale=0.0)) as place:
        said = await asyncio.gather(
            *(place.session(name).do(Command(("hostname",))) for name in ("te1", "te500", "te1000"))
        )
        assert [outputs[0].stdout.strip()[:3] for outputs in said] == ["ip-"] * 3
        assert len({place.machine(name).machine_id for name in place.lab.hosts}) == 1000


async def test_only_the_labs_key_and_its_users_get_in_and_every_host_has_its_own_key(tmp_path: Path) -> None:
    async with SimulatedLab(tmp_path, Options(hosts=2, scale=0.01)) as lab:
        other = asyncssh.generate_private_key("ssh-ed25519")
        key = str(tmp_path / "id_ed25519")
        known = str(tmp_path / "known_hosts")
        address, port = lab.hosts["te1"].address, lab.ssh.port
        for user, keys in (("ops", [other]), ("mallory", [key])):
            with pytest.raises(asyncssh.PermissionDenied):
                await asyncssh.connect(address, port, username=user, client_keys=keys, known_hosts=known, config=None)
        async with asyncssh.connect(
            address, port, username="ops", client_keys=[key], known_hosts=known, config=None
        ) as connection:
            said = await connection.run("cat /etc/shadow-nothing /etc/hostname")
            assert "No such file" in str(said.stderr)
            denied = await connection.run("rm /etc/hostname")
            assert "Permission denied" in str(denied.stderr)
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert len({line.split(" ", 1)[1] for line in lines}) == 2
    assert stat.S_IMODE((tmp_path / "id_ed25519").stat().st_mode) == 0o600


@pytest.mark.long
def test_the_process_starts_answers_to_its_control_socket_and_ends_with_its_parent(tmp_path: Path) -> None:
    words = (sys.executable, "-m", "lab.simulated", "--state", str(tmp_path), "--with-parent", "--hosts", "2")
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().strip() == f"SIMULATED lab ready: {tmp_path / 'cluster.yaml'}"
        before = ask(tmp_path, do="digest")["digests"]
        ask(tmp_path, do="drift", host="te2", kind="swap-off")
        after = ask(tmp_path, do="digest")["digests"]
        assert before["te1"] == after["te1"]
        assert before["te2"] != after["te2"]
        for nobody in ({"host": "nosuch"}, {}):
            with pytest.raises(RuntimeError, match="no simulated host"):
                ask(tmp_path, do="cut", **nobody)
        process.stdin.close()
        assert process.wait(10) == 0
        assert not (tmp_path / "id_ed25519").exists(), "the key is gone with the lab"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


async def test_sudo_of_a_simulated_host_takes_its_password_once_as_the_real_one(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(hosts=2, scale=0.01)) as place:
        host = place.lab.hosts["te2"]
        host.sudo, host.sudo_password = False, "correct horse"
        file = tmp_path / "password"
        pool = Pool()
        for content, code in (("wrong", "SHW-349"), ("correct horse", "")):
            file.write_text(content)
            file.chmod(0o600)
            target = place.cluster.target(place.cluster.host("te2"))
            asked = pool.host(replace(target, name=f"te2 {content}", sudo_password_file=str(file)))
            if code:
                with pytest.raises(LoginRefused) as refused:
                    await asked.read(Says(("id", "-u")))
                assert refused.value.code == code
                assert "1 incorrect password attempt" in refused.value.message
            else:
                assert (await asked.read(Says(("iptables", "-S", "FORWARD")))).stdout == "-P FORWARD ACCEPT\n"
        await pool.close()


def test_recorded_documents_are_filled_with_values_of_any_kind_and_are_the_callers_own() -> None:
    values = {"component": "etcd", "node": "n1", "uid": "u", "digest": "d", "image": "i", "path": "/health"}
    [pod] = recorded.documents("mirror_pod.yaml", port=2381, **values)
    assert pod["metadata"]["name"] == "etcd-n1"
    assert pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"] == 2381
    pod["spec"].clear()
    assert recorded.documents("mirror_pod.yaml", port=1, **values)[0]["spec"]
    with pytest.raises(KeyError, match="port"):
        recorded.documents("mirror_pod.yaml", **values)


@pytest.mark.parametrize(("minor", "verb"), [(20, "configured"), (22, "Configured"), (36, "Configured")])
def test_kubeadm_says_what_its_minor_version_says(minor: int, verb: str) -> None:
    said = texts.said("rights", minor)
    assert said.startswith(f"[bootstrap-token] {verb} RBAC rules to allow Node Bootstrap tokens to get nodes\n")
    assert ("access the kubelet API" in said) is (minor == 36)
