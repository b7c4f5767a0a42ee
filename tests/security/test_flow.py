"""Secrets of runs with Prefect: in no file of its home, on no command line of a host, in no report or log."""

from __future__ import annotations

import pytest
import yaml

from lab.simulated.control import ask
from tests.flows.story import Story
from tests.security.secret_forms import BOOTSTRAP_TOKEN, SECRET_FORMS

pytestmark = pytest.mark.xdist_group("prefect")


def secrets_of(story: Story) -> list[str]:
    """Return the secrets that the runs made or were given: kubeconfig, dashboard, SSH."""
    state = story.folder / "state" / "simulated"
    user = yaml.safe_load((state / "kubeconfig").read_text(encoding="utf-8"))["users"][0]["user"]
    dashboard = (state / "dashboard-token").read_text(encoding="utf-8").strip()
    private = (story.folder / "id_ed25519").read_text(encoding="utf-8").splitlines()[2]
    return [user["client-key-data"], dashboard, dashboard.rsplit(".", 1)[1], private]


def test_no_file_of_prefects_home_or_the_reports_holds_a_secret(story: Story) -> None:
    read = 0
    for folder in (story.home, story.reports):
        for path in folder.rglob("*"):
            if path.is_file():
                content, read = path.read_bytes(), read + 1
                assert b"PRIVATE KEY" not in content, path
                assert not [one for one in secrets_of(story) if one.encode() in content], path
    assert read >= 4


def test_no_command_line_of_any_host_holds_a_secret(story: Story) -> None:
    secrets = secrets_of(story)
    for host in ("te1", "te2", "te3", "te4"):
        words = [word for one in ask(story.folder, do="ran", host=host)["ran"] for word in one["words"]]
        assert "systemd-run" in words
        assert not [word for word in words if SECRET_FORMS.search(word) or any(one in word for one in secrets)]
    joins = [one["words"] for one in ask(story.folder, do="ran", host="te2")["ran"] if "join" in one["words"]]
    assert [words[-3:] for words in joins] == [["join", "--config", "/run/shipway/kubeadm-join.yaml"]]


def test_the_lab_was_given_no_secret_it_could_log(story: Story) -> None:
    said = (story.folder / "lab.log").read_text(encoding="utf-8", errors="replace")
    assert not BOOTSTRAP_TOKEN.search(said)
    assert not [one for one in secrets_of(story) if one in said]
