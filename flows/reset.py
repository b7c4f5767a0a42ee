"""The reset of a host: what Kubernetes and a bootstrap brought is taken off it. `python -m flows.reset`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.reset", run_name="__main__", alter_sys=True)

from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.confirming import confirmed
from flows.retiring import hold, retiring
from flows.running import as_states, run_name, verdict
from shipway.stage import StageName
from shipway.step import Impact
from tasks.context import Run
from tasks.leading import lead_beside
from tasks.report import Report
from tasks.retire.place import place_host
from tasks.retire.work import give_up
from tasks.run_stage import on


def reset_name() -> str:
    """Return the flow run's name: "reset w2 of te", "reset w2 of te (plan)"."""
    plan = "plan" if flow_run.parameters.get("mode") == "plan" else ""
    return run_name(f"reset {flow_run.parameters.get('host')} of", plan)


@flow(name="reset", flow_run_name=reset_name, persist_result=False)
@as_states
async def reset(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    host: str,
    confirm: str = "",
    mode: Literal["plan", "reset"] = "plan",
    cluster_gone: bool = False,  # noqa: FBT001, FBT002 - as above
    address: str = "",
    report_file: str | None = None,
) -> State[Report]:
    """Take off a host what Kubernetes and a bootstrap brought, and nothing else; or (mode plan) say what would go.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        host: The host, by its name in the cluster file.
        confirm: The host's name once more, typed by a person: what is on it is LOST. A plan needs none.
        mode: plan changes nothing and lists what would go; reset does it.
        cluster_gone: The cluster that the host was of is gone for good, so nobody can say whether it is still a node.
        address: HOST or HOST:PORT of a host that the file does not name.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    if mode == "reset":
        confirmed(host, confirm)
    async with retiring(cluster_file, "reset", mode, report_file) as run:
        run.retirement.cluster_gone = cluster_gone
        await place_host(run, host, address)
        await lead_beside(run, host)
        await clear(run, host)
    return verdict(run)


async def clear(run: Run, host: str) -> None:
    """Run the stages in order; the host ends as one that passes preflight."""
    may = await hold(run, host, await on(StageName.MAY_RESET, host))
    done = await on(StageName.RESET_HOST, host, may)
    if done is not None and run.allow > Impact.NOTHING:
        await on(StageName.PREFLIGHT, host, done)
        if host == run.control.name and (said := give_up(run)):
            run.retirement.left.append(said)
