"""`kubeadm init` on a simulated host, phase by phase: what is cut short in the middle leaves half a control plane."""

from __future__ import annotations

from lab.simulated.commands.registry import Call
from lab.simulated.kube.pki import Authority
from lab.simulated.kubeadm import files, texts
from lab.simulated.kubeadm.config import Asked
from lab.simulated.kubeadm.preflight import MANIFESTS, PARTS, failed, of_init, passed, pull_images
from lab.simulated.releases import since

# Seconds on a quiet machine, of the transcripts: 24.5 s for the control plane were measured on a loaded one.
_CHECKS, _CERTIFICATES, _KUBECONFIGS, _KUBELET, _ETCD, _SERVER, _AFTER = 1.0, 2.0, 0.5, 1.0, 2.0, 8.0, 2.0
_TIMEOUT = 240.0


async def init(call: Call, asked: Asked) -> int:
    """Run all phases; gives kubeadm's exit status."""
    call.say(f"[init] Using Kubernetes version: v{asked.version}\n[preflight] Running pre-flight checks\n")
    await call.took(_CHECKS)
    if not passed(call, asked, *await of_init(call, asked)):
        return 1
    call.say(texts.said("pulling", asked.minor))
    errors = await pull_images(call, asked.images(), asked.minor)
    if not passed(call, asked, errors, []):
        return 1
    authority = await _certificates(call, asked)
    await _kubeconfigs(call, asked, authority)
    steps = [_static_pods, _kubelet] if since(asked.minor, "static_pods_before_kubelet") else [_kubelet, _static_pods]
    for step in steps:
        await step(call, asked)
    if not await _control_plane(call, asked):
        return 1
    await call.took(_AFTER)
    cluster = call.host.link.cluster
    if cluster is not None:
        shown = "--skip-token-print" not in call.words
        call.say(texts.finished(asked, cluster.init_token, cluster.ca_hash, shown=shown))
    return 0


async def _certificates(call: Call, asked: Asked) -> Authority:
    """Make what is not there; an authority that is there is used again, as kubeadm does."""
    tree = call.host.files
    call.say(f'[certs] Using certificateDir folder "{files.PKI}"\n')
    authority, known = call.host.link.authority(call.host, asked)
    files.write_authority(tree, authority)
    if known:
        call.say("[certs] Using existing ca certificate authority\n")
    else:
        call.say('[certs] Generating "ca" certificate and key\n')
    await call.took(_CERTIFICATES / 2)
    files.write_certificates(tree, authority)
    call.say(texts.certificates(asked, existing=known))
    await call.took(_CERTIFICATES / 2)
    return authority


async def _kubeconfigs(call: Call, asked: Asked, authority: Authority) -> None:
    call.say(f'[kubeconfig] Using kubeconfig folder "{files.ETC}"\n')
    server = f"https://{asked.endpoint or f'{asked.address}:{asked.port}'}"
    for name in files.users(asked):
        existing = call.host.files.exists(f"{files.ETC}/{name}.conf")
        how = "Using existing kubeconfig file:" if existing else "Writing"
        where = f'"{files.ETC}/{name}.conf"' if existing else f'"{name}.conf" kubeconfig file'
        call.say(f"[kubeconfig] {how} {where}\n")
        if not existing:
            files.write_kubeconfig(call.host.files, authority, name, asked, server)
    await call.took(_KUBECONFIGS)


async def _kubelet(call: Call, asked: Asked) -> None:
    call.say(texts.said("kubelet starts", asked.minor))
    files.write_kubelet(call.host.files, asked, asked.kubelet)
    if why := call.host.services.restart_kubelet():
        call.warn(why)
    await call.took(_KUBELET)


async def _static_pods(call: Call, asked: Asked) -> None:
    new = since(asked.minor, "static_pods_before_kubelet")
    call.say(texts.said("etcd", asked.minor) if new else "")
    call.say(f'[control-plane] Using manifest folder "{MANIFESTS}"\n')
    for part in PARTS:
        if part != "etcd":
            call.say(f'[control-plane] Creating static Pod manifest for "{part}"\n')
        files.write_manifest(call.host.files, part, asked)
    call.say("" if new else texts.said("etcd", asked.minor))


async def _control_plane(call: Call, asked: Asked) -> bool:
    """Wait for the kubelet to bring the control plane up; without a kubelet that runs, wait in vain."""
    call.say(texts.said("waiting", asked.minor))
    call.host.services.settle()
    if not call.host.services.kubelet_up:
        await call.took(_TIMEOUT)
        if not call.host.services.kubelet_up:
            socket = "/run/containerd/containerd.sock" if asked.minor < 24 else files.SOCKET
            call.say(texts.said("timed out", asked.minor, socket=socket))
            failed(call, texts.said("could not", asked.minor))
            return False
    cluster = call.host.link.cluster
    if cluster is not None:  # what kubeadm gave it in kubelet.conf, the kubelet keeps in a file of its own
        server = f"https://{asked.endpoint or f'{asked.address}:{asked.port}'}"
        files.write_client(call.host.files, cluster.authority, asked.node_name, server)
    await call.took(_ETCD)
    files.write_etcd_data(call.host.files)
    await call.took(_SERVER)
    await call.host.link.serve(call.host, asked)
    call.say(texts.said("healthy", asked.minor, address=asked.address, port=asked.port))
    return True
