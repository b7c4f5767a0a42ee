"""What one host gets besides the image: its login key, the site's apt source, and what its GPUs need."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lab.containers.model import LabHost, LabPlan
from lab.containers.places import ASSETS
from lab.gpu_report import write_one

GPU_NAME, DRIVER = "NVIDIA A10 SIMULATED", "550.163.01"  # as assets/gpu/nvidia-smi has them
USER_ID = 1000  # the first user that useradd makes


@dataclass(frozen=True)
class HostFile:
    """One file to put on a host."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: int = 0


def host_files(
    host: LabHost, plan: LabPlan, *, login_key: bytes, archive_key: bytes, runtime: Path | None
) -> list[HostFile]:
    """Return the files of one host; `runtime` stands in front of runc where the machine lacks a capability."""
    source = f"deb [signed-by=/etc/apt/keyrings/site.asc] {plan.apt_url('debian')} ./\n"
    files = [
        HostFile(f"/home/{host.user}/.ssh/authorized_keys", login_key, 0o600, USER_ID),
        HostFile("/etc/apt/keyrings/site.asc", archive_key),
        HostFile("/etc/apt/sources.list.d/site.list", source.encode()),
    ]
    if runtime is not None:
        # First in every service's PATH, so runc's package can come and go behind it.
        files.append(HostFile("/usr/local/sbin/runc", runtime.read_bytes(), 0o755))
    if host.gpus:
        gpus = "".join(f"{gpu} Healthy\n" for gpu in host.gpu_ids())
        files += [
            HostFile("/usr/bin/nvidia-smi", (ASSETS / "gpu" / "nvidia-smi").read_bytes(), 0o755),
            HostFile("/var/lib/labgpu/devices", gpus.encode()),
            *(
                HostFile(f"/var/lib/labgpu/report-{gpu}", write_one(index, gpu, GPU_NAME, DRIVER).encode())
                for index, gpu in enumerate(host.gpu_ids())
            ),
        ]
    return files


def archive(files: list[HostFile]) -> bytes:
    """Return the files as a tar archive for the engine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(file.content), file.mode, file.owner, file.owner
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()
