"""The stages of `shipway move-endpoint`."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.endpoint import work as endpoints
from tasks.endpoint.look import look, may_move
from tasks.endpoint.work import ROLLOUT_SECONDS, ROLLOUT_SECONDS_A_NODE
from tasks.stage import HOST_SECONDS, Stage, always

STAGES = (
    Stage(StageName.ENDPOINT_LOOK, look, always(240.0), terse=True),
    Stage(StageName.ENDPOINT_POSSIBLE, may_move, always(120.0)),
    Stage(StageName.ENDPOINT_CERTIFICATE, endpoints.certify, always(1500.0)),
    Stage(StageName.ENDPOINT_WAY, endpoints.name_way, always(HOST_SECONDS)),
    Stage(StageName.ENDPOINT_RECORD, endpoints.record, always(300.0)),
    Stage(StageName.ENDPOINT_KUBECONFIGS, endpoints.point_kubeconfigs, always(2400.0)),
    Stage(
        StageName.ENDPOINT_KUBE_PROXY,
        endpoints.point_kube_proxy,
        lambda cluster: ROLLOUT_SECONDS + ROLLOUT_SECONDS_A_NODE * len(cluster.hosts) + 120,
    ),
    Stage(StageName.ENDPOINT_PROOF, endpoints.prove, always(600.0)),
    Stage(StageName.ENDPOINT_OLD_WAY, endpoints.leave_old_way, always(600.0)),
)
