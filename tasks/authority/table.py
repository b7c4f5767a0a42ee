"""The stages of `shipway rotate-ca`."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.authority import work as authorities
from tasks.authority.look import SETTLE_SECONDS, look, may_rotate
from tasks.authority.work import PARTS_SECONDS, PARTS_SECONDS_A_NODE
from tasks.stage import Stage, always

# A control plane's three pods are started anew one by one, the controller manager twice, and its kubelet.
STAGES = (
    Stage(StageName.AUTHORITY_LOOK, look, always(SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.AUTHORITY_POSSIBLE, may_rotate, always(600.0)),
    Stage(StageName.AUTHORITY_MADE, authorities.make, always(300.0)),
    Stage(StageName.AUTHORITY_TRUSTED, authorities.trust, always(3600.0)),
    Stage(
        StageName.AUTHORITY_TOLD,
        authorities.spread,
        lambda cluster: 2 * (PARTS_SECONDS + PARTS_SECONDS_A_NODE * len(cluster.hosts)) + 900,
    ),
    Stage(StageName.AUTHORITY_SIGNS, authorities.sign, always(3600.0)),
    Stage(StageName.AUTHORITY_KUBELETS, authorities.sign_kubelet, always(1200.0)),
    Stage(StageName.AUTHORITY_PROOF, authorities.prove, always(600.0)),
    Stage(StageName.AUTHORITY_DROPPED, authorities.drop, always(3600.0)),
    Stage(StageName.AUTHORITY_ALONE, authorities.unspread, always(900.0)),
    Stage(StageName.AUTHORITY_KEPT, authorities.end, always(600.0)),
)
