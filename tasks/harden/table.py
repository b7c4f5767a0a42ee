"""The stages of `shipway harden`."""

from __future__ import annotations

from shipway.stage import StageName
from tasks.harden import stages as harden
from tasks.stage import Stage, always

# Each of a control plane's three pods may be started anew twice: with its new manifest, and with its old one.
STAGES = (
    Stage(StageName.MAY_HARDEN, harden.may_harden, always(240.0)),
    Stage(StageName.HARDEN_FILES, harden.harden_files, always(300.0)),
    Stage(StageName.HARDEN_CONTROL_PLANE, harden.harden_control_plane, always(3600.0)),
    Stage(StageName.HARDEN_RECORD, harden.harden_record, always(300.0)),
    Stage(StageName.SEAL_SECRETS, harden.seal_secrets, always(4200.0)),
    Stage(StageName.HARDEN_HOST, harden.harden_host, always(900.0)),
)
