"""One layout, one lab and one browser for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from flows.cli.demo import Demo
from tests.places.webhook import webhook
from tests.ui.browser import browser
from tests.ui.layout import SERVER_PACKAGES, laid_out
from tests.ui.site import Site, pictures_in

PROGRAMS = {
    "redis-server": "redis-server",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "psql": "postgresql",
}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield everything, running; automations call the webhook."""
    if missing := [package for name, package in PROGRAMS.items() if not shutil.which(name)]:
        pytest.fail(f"apt-get install {' '.join(missing)}")
    if not SERVER_PACKAGES.exists():
        pytest.fail("`make test-ui` installs what a server on Redis needs")
    folder = tmp_path_factory.mktemp("layout")
    with Demo() as lab, laid_out(folder) as layout, browser(folder) as one, webhook() as heard:
        file = layout.clusters / "cluster.yaml"
        file.write_text(lab.cluster_file().read_text(encoding="utf-8"), encoding="utf-8")
        url = folder / "webhook"
        url.write_text(heard.url, encoding="utf-8")
        print("\n" + layout.command("python", "-m", "deployments.automations", "--webhook-url-file", str(url)))
        url.unlink()
        yield Site(layout, lab.folder, one, heard, pictures_in(folder / "pictures"))
