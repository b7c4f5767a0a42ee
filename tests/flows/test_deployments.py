"""What puts Shipway on a Prefect server: deployments, images and values that say what the code and Prefect know."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import prefect
import pytest
import yaml
from cronsim import CronSim
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.flows import Flow
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, Settings, temporary_settings
from pydantic import BaseModel

from tests.places.prefect import Place

FOLDER = Path(__file__).parents[2] / "deployments"
PREFECT = yaml.safe_load((FOLDER / "prefect.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVER = yaml.safe_load((FOLDER / "helm" / "values-server.yaml").read_text(encoding="utf-8"))
WORKER = yaml.safe_load((FOLDER / "helm" / "values-worker.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {one["name"]: one for one in PREFECT["deployments"]}
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS = Path(prefect.__path__[0]) / "server/api/collections_data/views/aggregate-worker-metadata.json"
SCHEDULED = {"drift-repair": 48, "verify-gpus": 1, "backup": 1}  # runs a day


@pytest.fixture(params=DEPLOYMENTS.values(), ids=str(list(DEPLOYMENTS)).strip("[]").replace("'", "").split(", "))
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    given: dict[str, Any] = request.param
    return given


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, name = deployment["entrypoint"].split(":")
    found = getattr(import_module(module), name)
    assert isinstance(found, Flow)
    return found


def test_the_entry_point_is_a_flow_that_takes_the_parameters(deployment: dict[str, Any]) -> None:
    taken = flow_of(deployment)
    assert set(deployment["parameters"]) <= set(taken.parameters.properties)
    assert set(taken.parameters.required) <= set(deployment["parameters"])
    taken.validate_parameters(deployment["parameters"])


def test_the_run_form_explains_every_parameter(deployment: dict[str, Any]) -> None:
    unexplained = [n for n, p in flow_of(deployment).parameters.properties.items() if not p.get("description")]
    assert not unexplained
    assert deployment["description"].strip()


def test_the_run_form_offers_only_what_the_flow_does() -> None:
    def choices(deployment: str, field: str) -> list[str]:
        return list(flow_of(DEPLOYMENTS[deployment]).parameters.properties[field]["enum"])

    assert choices("bootstrap", "mode") == ["bootstrap", "plan"]
    assert choices("drift-repair", "repair") == ["declared", "none", "files", "service", "workloads"]
    assert choices("fleet", "what") == ["plan", "look"]
    assert choices("remove", "mode") == ["plan", "remove"]
    assert choices("replace", "mode") == ["plan", "replace"]
    assert choices("reset", "mode") == ["plan", "reset"]


def test_no_parameter_can_hold_a_secret(deployment: dict[str, Any]) -> None:
    for name in flow_of(deployment).parameters.properties:
        assert not {"password", "token", "secret", "key"} & set(name.split("_"))


def test_schedules_come_as_often_as_they_say_and_never_twice_at_once() -> None:
    for name, a_day in SCHEDULED.items():
        one = DEPLOYMENTS[name]
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        (schedule,) = one["schedules"]
        fields = {key: schedule[key] for key in ("cron", "timezone")}
        made = DeploymentScheduleCreate.model_validate({"schedule": fields, "active": schedule["active"]})
        assert made.active is False  # to deploy must not begin to repair, or to take GPUs
        times = CronSim(schedule["cron"], FIRST)
        assert sum(when < FIRST + timedelta(days=1, seconds=1) for when in islice(times, 100)) == a_day


def test_every_deployment_has_the_process_pool_and_variants_are_there() -> None:
    assert {one["work_pool"]["name"] for one in DEPLOYMENTS.values()} == {"shipway"}
    assert set(PREFECT["definitions"]["pools"]) == {"process", "docker", "kubernetes"}


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_job_variables_of_a_variant_are_those_of_prefects_own_worker(kind: str) -> None:
    """Held against the template that a server gives to a new pool of the type."""
    workers = json.loads(WORKERS.read_text(encoding="utf-8"))
    (template,) = (one[kind]["default_base_job_configuration"] for one in workers.values() if kind in one)
    variables = PREFECT["definitions"]["pools"][kind]["job_variables"]
    assert not set(variables) - set(template["variables"]["properties"])
    jsonschema.validate(variables, template["variables"])


def known_settings() -> set[str]:
    """Return the environment names that Prefect reads."""
    known: set[str] = set()

    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel) and hasattr(inner, "model_config"):
                walk(inner)
            prefix = str(model.model_config.get("env_prefix", "PREFECT_"))
            known.add(f"{prefix}{name}".upper())
            for alias in getattr(field.validation_alias, "choices", ()):
                known.add(str(alias).upper())

    walk(Settings)
    return known


def settings_in_use() -> dict[str, set[str]]:
    """Return the settings that the compose file and the values set, by place."""
    compose = {name for one in COMPOSE["services"].values() for name in one.get("environment", {})}
    helm = {one["name"] for one in SERVER["global"]["prefect"]["env"]}
    return {"compose": compose | {"PREFECT_SERVER_DATABASE_CONNECTION_URL"}, "helm": helm}


def test_every_setting_is_one_that_prefect_reads() -> None:
    known = known_settings()
    for place, names in settings_in_use().items():
        own = {name for name in names if name.startswith("PREFECT_") and not name.startswith("PREFECT_REDIS_")}
        assert len(own) >= 5, place
        assert not own - known, place


def test_compose_has_the_parts_each_with_a_health_check() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "redis", "migrate", "api", "services", "deploy", "worker"}
    for name, one in services.items():
        assert "healthcheck" in one, name
        for needed, how in one.get("depends_on", {}).items():
            assert needed in services
            checked = "disable" not in services[needed]["healthcheck"]
            assert checked if how["condition"] == "service_healthy" else not checked
    assert "--no-services" in services["api"]["command"]
    assert services["services"]["command"][-2:] == ["services", "start"]
    assert services["services"]["deploy"]["replicas"] == 1


# Why an image may be named by a tag alone; what is not here must be named by its digest.
BY_TAG = {
    "shipway:0.1.0": "built from this project, and in no registry before its user puts it there",
}
# A digest as every registry names an index of all architectures: sha256 and 64 hexadecimal digits (OCI image-spec).
DIGEST = re.compile(r"[^@]+@sha256:[0-9a-f]{64}")


def named_images() -> set[str]:
    """Return every image that a file of the deployments names, the build argument of the base image filled in."""
    docker = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    given = dict(re.findall(r"^ARG (\w+)=(\S+)$", docker, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", docker, re.MULTILINE))
    froms = re.findall(r"^FROM (?:--\S+ )?(\S+)", docker, re.MULTILINE)
    copied = re.findall(r"^COPY --from=(\S+)", docker, re.MULTILINE)
    images = {re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], one) for one in (*froms, *copied)} - stages
    images |= {one["image"] for one in COMPOSE["services"].values()}
    images |= {pool["job_variables"]["image"] for pool in PREFECT["definitions"]["pools"].values() if _image_of(pool)}
    for image in (WORKER["worker"]["image"], SERVER["global"]["prefect"]["image"]):
        images.add(f"{image['repository']}:{image['prefectTag']}")
    return images


def _image_of(pool: dict[str, Any]) -> str:
    return str((pool.get("job_variables") or {}).get("image", ""))


def test_every_image_is_named_by_its_digest_or_an_exception_says_why_not() -> None:
    images = named_images()
    assert len(images) >= 4
    assert {image for image in images if not DIGEST.fullmatch(image)} == set(BY_TAG)
    page = (FOLDER.parent / "docs" / "deployments.md").read_text(encoding="utf-8")
    assert [image for image in BY_TAG if f"`{image}`" not in page] == []


def test_images_are_pinned() -> None:
    images = {one["image"] for one in COMPOSE["services"].values()} | {
        "shipway:" + WORKER["worker"]["image"]["prefectTag"]
    }
    images.add("shipway:" + SERVER["global"]["prefect"]["image"]["prefectTag"])
    arg = next(line for line in (FOLDER / "Dockerfile").read_text().splitlines() if line.startswith("ARG PYTHON="))
    base, _, digest = arg.partition("=")[2].partition("@sha256:")
    assert len(digest) == 64  # the base image by digest: what is built on it holds the keys to every host
    images.add("python:" + base)
    for image in images:
        tag = image.partition("@")[0].rpartition(":")[2]
        assert tag.count(".") >= 1, image
        assert tag[0].isdigit(), image


def test_compose_holds_no_secret_and_opens_only_loopback() -> None:
    assert {one["file"] for one in COMPOSE["secrets"].values()} == {f"./secrets/{name}" for name in COMPOSE["secrets"]}
    for name, one in COMPOSE["services"].items():
        for secret in one.get("secrets", ()):
            assert (secret["source"] if isinstance(secret, dict) else secret) in COMPOSE["secrets"], name
        for key in one.get("environment", {}):
            assert "PASSWORD" not in key or key.endswith("_FILE"), name
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))
    assert "secrets" in (FOLDER / ".gitignore").read_text().replace("/", "").split()


def test_the_image_copies_what_is_there_and_its_versions_are_the_locks() -> None:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    for words in copied:
        for source in words[1:-1]:
            assert (FOLDER.parent / source).exists(), source
    assert "--require-hashes \\\n      -r /build/requirements.lock -r /build/requirements-server.txt" in "\n".join(
        lines
    )
    assert any(line.startswith("USER shipway") for line in lines)


def test_helm_runs_one_set_of_services_apart_from_the_api() -> None:
    assert SERVER["backgroundServices"]["runAsSeparateDeployment"] is True
    compose = COMPOSE["services"]["api"]["environment"]
    messaging = SERVER["backgroundServices"]["messaging"]
    assert messaging["broker"] == compose["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"]
    assert messaging["redis"]["host"] == compose["PREFECT_REDIS_MESSAGING_HOST"]
    assert messaging["docket"]["url"] == compose["PREFECT_SERVER_DOCKET_URL"]
    for one in SERVER["global"]["prefect"]["env"]:
        assert one["name"] == "PREFECT_UI_URL" or compose[one["name"]] == one["value"]
    assert WORKER["worker"]["config"]["workPool"] == DEPLOYMENTS["bootstrap"]["work_pool"]["name"]
    mounted = {one["name"] for one in WORKER["worker"]["extraVolumeMounts"]}
    assert mounted == {one["name"] for one in WORKER["worker"]["extraVolumes"]}


def test_a_schedule_brings_runs(prefect_place: Place) -> None:
    """What the scheduler does every minute, asked for at once: on SQLAlchemy 2.1 no scheduled run ever appears."""
    assert prefect_place.api.url

    async def scheduled() -> int:
        async with get_client() as client:
            flow_id = await client.create_flow_from_name("bootstrap")
            given = DEPLOYMENTS["drift-repair"]["schedules"][0]
            schedule = DeploymentScheduleCreate.model_validate(
                {"schedule": {"cron": given["cron"], "timezone": given["timezone"]}, "active": True}
            )
            made = await client.create_deployment(flow_id, "scheduled", schedules=[schedule])
            await client._client.post(f"/deployments/{made}/schedule", json={"min_runs": 3})
            about = {"deployments": {"id": {"any_": [str(made)]}}}
            return int((await client._client.post("/flow_runs/count", json=about)).json())

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # a refusal is not asked for again for minutes
        assert asyncio.run(scheduled()) >= 3
