"""The stages by which hosts are taken out: remove, replace, reset."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.retire.allowed import may_remove, may_reset
from tasks.retire.whole import may_reset_all
from tasks.retire.work import DRAIN_SECONDS, delete_node, drain_node, leave_api, leave_etcd, reset_host, stop_kubelet
from tasks.stage import Stage, always

STAGES = (
    Stage(StageName.MAY_REMOVE, may_remove, always(180.0), 0),
    Stage(StageName.MAY_RESET, may_reset, always(180.0), 0),
    Stage(StageName.MAY_RESET_ALL, may_reset_all, always(300.0), 0),
    Stage(StageName.LEAVE_API, leave_api, always(300.0)),
    Stage(StageName.DRAIN_NODE, drain_node, always(DRAIN_SECONDS + 600), 0),
    Stage(StageName.STOP_KUBELET, stop_kubelet, always(300.0)),
    Stage(StageName.LEAVE_ETCD, leave_etcd, always(300.0)),
    Stage(StageName.DELETE_NODE, delete_node, always(300.0)),
    Stage(StageName.RESET_HOST, reset_host, always(3600.0)),
)
