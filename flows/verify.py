"""The GPU proof on its own: a deployment that shows every day that each GPU can still be scheduled and used.

`python -m flows.verify`.
"""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.verify", run_name="__main__", alter_sys=True)

import asyncio

from prefect import State, flow

from flows.running import Manner, as_states, run_name, running, verdict
from flows.verify_gpus import verify
from shipway.errors import Refused
from shipway.stage import StageName
from tasks.locking import lease
from tasks.ownership import disagreement
from tasks.passes.figures import Level
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, StageResult, fail_by


def verify_name() -> str:
    """Return the flow run's name: "verify te"."""
    return run_name("verify")


@flow(name="verify-cluster", flow_run_name=verify_name, persist_result=False)
@as_states
async def verify_cluster(cluster_file: str, report_file: str | None = None, level: Level = "quick") -> State[Report]:
    """Prove that every GPU of a running cluster can be scheduled and used; test pods only, nothing is changed.

    Its test pods hold GPUs, and what another run finds of test pods it deletes: so it holds the cluster as a run that
    changes it does, and makes none without that.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
        level: quick as ever; full also measures what each free GPU reaches, in pods and on its host; burn
            runs NVIDIA's own diagnosis as well, where dcgmi is installed, and burn-long its longest level (hours).
    """
    async with running(cluster_file, "bootstrap", (), (), report_file, Manner(kind="verify")) as run:
        run.figures.level = level
        seen = await asyncio.gather(*(on(StageName.PREFLIGHT, host.name) for host in run.hosts))
        faults = await disagreement(run)
        run.results += [StageResult(fault.host, StageName.PREFLIGHT, "failed", errors=(fault,)) for fault in faults]
        if not faults:  # else the test pods would be of another cluster than the file's
            run.admitted |= {host.name for host, state in zip(run.hosts, seen, strict=True) if state is not None}
            kept_out = await lease(run)
            if isinstance(kept_out, Refused):
                raise kept_out
            if kept_out is not None:
                run.results.append(fail_by(kept_out, run.control.name, StageName.CONTROL_PLANE_READY))
            elif await on(StageName.CONTROL_PLANE_READY, CLUSTER) is not None:
                run.ready |= {
                    host.name for host in run.hosts if (found := run.seen.surveys.get(host.name)) and found.joined
                }
        if run.ready:
            await verify(run)
            if level != "quick":
                await on(StageName.GPU_FIGURES, CLUSTER)
                await on(StageName.GPU_ACROSS, CLUSTER)
    return verdict(run)
