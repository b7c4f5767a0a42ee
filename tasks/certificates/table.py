"""The stages of the certificates' renewal."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.certificates.stages import approve_requests, look, mend_kubelet, renew, renew_files
from tasks.stage import Stage, always

# A control plane's four pods are each given what one restart may take at most; kubelets their API.
STAGES = (
    Stage(StageName.CERTIFICATES, look, always(240.0), terse=True),
    Stage(StageName.RENEW_FILES, renew_files, always(900.0)),
    Stage(StageName.RENEW_CERTIFICATES, renew, always(2400.0)),
    Stage(StageName.KUBELET_CERTIFICATES, mend_kubelet, always(900.0)),
    Stage(StageName.SERVING_REQUESTS, approve_requests, always(300.0)),
)
