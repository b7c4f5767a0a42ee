"""The vendor whose GPUs Shipway builds for: the one place that generic code takes it from."""

from __future__ import annotations

from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.vendor import Vendor

VENDOR: Vendor = NVIDIA
