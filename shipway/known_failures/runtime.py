"""Known failures of containerd and of images: its service, its configuration, sandboxes, registries."""

from __future__ import annotations

from shipway.known_failures.entry import Known

ENTRIES: tuple[Known, ...] = (
    # How a registry refuses stands before what was pulled from it: a pause image that is refused is refused.
    Known(
        "SHW-444",
        "a registry asks who is there",
        r"failed to resolve reference \\?\"(?P<image>[A-Za-z0-9._:/@-]+)\\?\"[^\n]*"
        r"(?:40[13] (?:Unauthorized|Forbidden)|authorization failed|insufficient_scope|no basic auth credentials)|"
        r"pull access denied|"
        r"unexpected status[^\n]{0,200}: 40[13] (?:Unauthorized|Forbidden)",
        "The registry gives IMAGE to nobody whom it does not know: its project is private, or user and password are "
        "missing or wrong.",
        "Make the project public, or name a file with user and password in `sources.registries.NAME.credentials` of "
        "the cluster file, then run again.",
        retryable=False,
        traps=(19,),
    ),
    Known(
        "SHW-445",
        "a registry speaks HTTP where HTTPS is asked",
        r"\"(?P<address>https?://[A-Za-z0-9._:-]+)[^\n]*server gave HTTP response to HTTPS client|"
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        "ADDRESS answers without TLS, and containerd asks every registry with TLS unless it is configured otherwise.",
        "Give the registry a certificate, or name it as a mirror with its http:// address: "
        "`sources.registry_mirrors: {HOST: 'http://HOST'}` in the cluster file, then run again.",
        retryable=False,
        traps=(19,),
    ),
    Known(
        "SHW-358",
        "an image is not made for this architecture",
        r"no match for platform in manifest|exec format error",
        "The image has no part for this host's processor.",
        "On the host: `uname -m`; name an image or a mirror that holds this architecture in the cluster file.",
        retryable=False,
        traps=(47,),
    ),
    Known(
        "SHW-357",
        "a certificate is for another name",
        r"x509: certificate is valid for [^\n]{1,200}, not |x509: cannot validate certificate for \S+ because it "
        r"doesn't contain any IP SANs|x509: certificate relies on legacy Common Name field",
        "The server's certificate does not hold the name or address by which it is asked.",
        "Ask by the name that stands in the certificate (`openssl s_client -connect HOST:443 | openssl x509 -noout "
        "-ext subjectAltName`), or have one made that holds this name; correct it in the cluster file, run again.",
        retryable=False,
    ),
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
        # A kubelet that may not set its own score says so every few minutes and works: "failed to apply oom score".
        r"can't get final child's PID from pipe: EOF|(?m:^(?!.*apply oom score).*oom_score_adj: permission denied)",
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
        "Compare the name with what the mirror holds; on the host "
        "`ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d IMAGE` tries it. Correct image or mirror.",
        retryable=False,
        traps=(19, 47),
    ),
    Known(
        "SHW-441",
        "a registry does not answer",
        r"failed to do request: (?:Head|Get) [^\n]*(?:i/o timeout|TLS handshake timeout|connection refused|"
        r"no such host|no route to host|context deadline exceeded)",
        "The registry or its mirror cannot be reached from this host.",
        "On the host: `ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d IMAGE`; check DNS, proxy and "
        "firewall, or name a mirror under `sources.registry_mirrors`.",
        retryable=True,
        traps=(8, 19),
    ),
    Known(
        "SHW-442",
        "a certificate is not valid at this time",
        r"x509: certificate has expired or is not yet valid|"
        r"The certificate chain uses (?:expired|not yet valid) certificate|"
        r"SSL certificate problem: certificate (?:has expired|is not yet valid)|"
        r"certificate verify failed:? [^\n]*(?:expired|not yet valid)",
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
