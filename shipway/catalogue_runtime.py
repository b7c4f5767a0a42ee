"""Known failures of containerd and of images: its service, its configuration, sandboxes, registries."""

from __future__ import annotations

from shipway.catalogue_entry import Known

ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-431",
        "containerd runs without its CRI plugin",
        r"unknown service runtime\.v1(?:alpha2)?\.(?:RuntimeService|ImageService)",
        "The packaged configuration disables the CRI plugin, or the plugin failed to load.",
        "On the host: `containerd config dump | grep disabled_plugins; ctr plugins ls | grep cri`, then run again.",
        retryable=False,
        traps=(17,),
    ),
    Known(
        "SHW-435",
        "containerd's default runtime is not configured",
        r"no corresponding runtime configured in",
        "A drop-in has replaced the whole table of runtimes (containerd before 2.1 merges by key).",
        "On the host: `containerd config dump` must show runc and nvidia; remove foreign drop-ins, then run again.",
        retryable=False,
        traps=(21, 25),
    ),
    Known(
        "SHW-432",
        "containerd refuses its configuration",
        r"failed to load TOML|expected containerd config version|invalid plugin config|"
        r"(?:unsupported|invalid) config(?:uration)? version|toml: (?:table|line|expected|incomplete)",
        "A file of containerd's configuration has errors or another layout than its version (1.x: 2, 2.0: 3, 2.3: 4).",
        "On the host: `containerd config dump` names the file; drop-ins under /etc/containerd must have the "
        "same version.",
        retryable=False,
        traps=(18, 24, 25),
    ),
    Known(
        "SHW-433",
        "containerd does not answer",
        r"\[ERROR CRI\]: container runtime is not running|"
        r"(?:unix://)?/run/containerd/containerd\.sock[^\n]{0,200}"
        r"(?:context deadline exceeded|connection refused|no such file or directory)",
        "containerd is stopped, or ends as soon as it starts.",
        "On the host: `systemctl status containerd; journalctl -u containerd -n 50`, then run again.",
        retryable=False,
        traps=(17, 22),
    ),
    Known(
        "SHW-434",
        "containerd has no such runtime",
        r"no runtime for \"[^\"]+\" is configured",
        "A pod's RuntimeClass names a handler that containerd of this node does not have.",
        "On the node: `containerd config dump | grep -A3 'runtimes.nvidia'`; run the bootstrap again for this host.",
        retryable=False,
        traps=(21, 25, 48),
    ),
    Known(
        "SHW-436",
        "kubelet and containerd use different cgroup drivers",
        r"expected cgroupsPath to be of format \"slice:prefix:name\"|"
        r"kubelet cgroup driver: \"?\w+\"? is different from",
        "One of them uses systemd and the other cgroupfs.",
        "On the host: `containerd config dump | grep SystemdCgroup` must be true for every runtime; run again.",
        retryable=False,
        traps=(20,),
    ),
    Known(
        "SHW-437",
        "a container cannot lower its OOM score",
        r"can't get final child's PID from pipe: EOF|oom_score_adj: permission denied",
        "The host is itself a container that may not change OOM scores.",
        "Set `runtime.restrict_oom_score_adj: true` in the cluster file, then run again.",
        retryable=False,
    ),
    Known(
        "SHW-438",
        "too many requests to a registry",
        r"toomanyrequests|429 Too Many Requests",
        "The registry limits how often this address may pull.",
        "Wait, or name a mirror under `sources.registry_mirrors` in the cluster file.",
        retryable=True,
    ),
    Known(
        "SHW-439",
        "the sandbox image cannot be pulled",
        # In quotes: kubeadm's list of all images that it could not pull has pause in it as well, without them.
        r"failed to (?:get|pull) (?:sandbox )?image \\?\"\S*pause:[^\n]*",
        "containerd's own sandbox (pause) image is fetched from where this host does not get: kubeadm's image "
        "repository does not set it.",
        "On the host: `containerd config dump | grep -E 'sandbox'`; set `kubernetes.image_repository` or a registry "
        "mirror in the cluster file, then run again.",
        retryable=True,
        traps=(19,),
    ),
    Known(
        "SHW-440",
        "an image does not exist",
        r"failed to resolve reference \\?\"[^\n]*: not found|manifest unknown|code = NotFound desc = failed to pull",
        "The registry answers, and has no image of this name and tag.",
        "Compare the name with what the mirror holds (`crictl pull IMAGE` on the host); correct image or mirror.",
        retryable=False,
        traps=(19, 47),
    ),
    Known(
        "SHW-441",
        "a registry does not answer",
        r"failed to do request: (?:Head|Get) [^\n]*(?:i/o timeout|TLS handshake timeout|connection refused|"
        r"no such host|no route to host|context deadline exceeded)",
        "The registry or its mirror cannot be reached from this host.",
        "On the host: `crictl pull IMAGE`; check DNS, proxy and firewall, or name a mirror under "
        "`sources.registry_mirrors`.",
        retryable=True,
        traps=(8, 19),
    ),
    Known(
        "SHW-442",
        "a certificate is not valid at this time",
        r"x509: certificate has expired or is not yet valid",
        "The host's clock is wrong, or a certificate has really expired.",
        "On the host: `date -u; timedatectl`; with a right clock: `kubeadm certs check-expiration` on the "
        "control plane.",
        retryable=False,
        traps=(15,),
    ),
    Known(
        "SHW-443",
        "a certificate is signed by an unknown authority",
        r"x509: certificate signed by unknown authority",
        "A registry, mirror or API uses a certificate of an authority that this host does not know.",
        "Install the site's CA on the host (`/usr/local/share/ca-certificates`, `sudo update-ca-certificates`), "
        "restart containerd, then run again.",
        retryable=False,
    ),
)
