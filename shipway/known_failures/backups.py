"""What the script says that takes backups, and what each of its endings means."""

from __future__ import annotations

from shipway.known_failures.entry import Known

_LOOK = "On the host: `bash /var/lib/shipway/backup/host.sh look`"
_AGAIN = "Take another backup. Where it is so again, look at etcd itself: `etcdctl endpoint hashkv --cluster`."

ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-720",
        "no etcd of kubeadm's on the host",
        r"shipway-backup\[no-etcd\]|no /etc/kubernetes/manifests/etcd\.yaml",
        "The host runs no etcd that kubeadm made, or that etcd does not answer.",
        "On the host: `ls /etc/kubernetes/manifests; ctr -n k8s.io tasks ls`; an etcd outside the cluster is "
        "backed up by who runs it.",
        retryable=False,
    ),
    Known(
        "SHW-721",
        "etcd's own programs cannot be had",
        r"shipway-backup\[no-tools\]|no ctr on this host",
        "etcdctl, and for etcd 3.6 etcdutl, are neither in etcd's image nor on the host.",
        "Put etcdctl and etcdutl of the running etcd's version into `/usr/local/bin` of the host, then run again.",
        retryable=False,
    ),
    Known(
        "SHW-722",
        "no room for a backup",
        r"shipway-backup\[no-room\]|MiB free for backups",
        "A backup and its restored copy need twice the database's size, and there is less.",
        "Make room below `/var/lib/shipway` on the host, or lower `backup.keep`; then run again.",
        retryable=False,
    ),
    Known(
        "SHW-723",
        "another backup is under way",
        r"shipway-backup\[busy\]|another backup of this host is under way",
        "The host takes a backup already, by its timer or for another run.",
        "Wait for its end (`systemctl list-units 'shipway-*'` on the host), then run again.",
        retryable=True,
    ),
    Known(
        "SHW-724",
        "etcd gave no snapshot",
        r"shipway-backup\[no-snapshot\]",
        "etcd did not write a whole snapshot.",
        "On the host: `df -h /var/lib; tail -n 20 /var/log/pods/kube-system_etcd-*/etcd/*.log`; then run again.",
        retryable=True,
    ),
    Known(
        "SHW-725",
        "a backup is damaged",
        r"shipway-backup\[damaged\]",
        "A file of the backup is not as it was taken, or etcd does not restore its snapshot.",
        f"Do not restore it: take another one. {_LOOK} names those that are verified.",
        retryable=False,
    ),
    Known(
        "SHW-726",
        "etcd's revision went back",
        r"shipway-backup\[went-back\]",
        "etcd counts lower than in the backup before: its data were set back to an older state.",
        "Find out who restored what (`ls -l --time-sort /var/lib/etcd/member/snap`). Where it was on purpose, move the "
        "backups before it out of `/var/lib/shipway/backups`, then run again.",
        retryable=False,
    ),
    Known(
        "SHW-727",
        "the throw-away etcd did not come up",
        r"shipway-backup\[not-restored\]",
        "The backup could not be tried: the etcd that was started from it ended or did not answer.",
        "The backup stays, and is not verified. See `free -m` and the disk on the host, then run again.",
        retryable=True,
    ),
    Known(
        "SHW-728",
        "keys are missing in the restored copy",
        r"shipway-backup\[keys-missing\]",
        "The restored copy has fewer keys of a kind than the cluster had at the snapshot's revision.",
        _AGAIN,
        retryable=False,
    ),
    Known(
        "SHW-729",
        "the canary is not in the restored copy",
        r"shipway-backup\[canary\]",
        "The object that was written before the snapshot is not the same in the restored copy.",
        _AGAIN,
        retryable=False,
    ),
    Known(
        "SHW-730",
        "no network of its own for the throw-away etcd",
        r"shipway-backup\[no-isolation\]",
        "systemd gave the throw-away etcd no network of its own, so the Secrets in it could be read on the host.",
        "The backup stays, and is not verified. On the host: `unshare --net true`, which must work for root.",
        retryable=False,
    ),
    Known(
        "SHW-734",
        "a backup that may not be restored here",
        r"shipway-backup\[other\]|a verified backup of this name",
        "The backup is not there, was never verified, or is of another cluster; or another restore was broken off.",
        f"{_LOOK} names the backups that are verified, and a restore that was broken off: end that one first.",
        retryable=False,
    ),
    Known(
        "SHW-814",
        "the key of encryption at rest is missing",
        r"shipway-backup\[no-key\]",
        "The backup's Secrets are encrypted at rest, and a key by which they are is not where it is needed.",
        "Put the named file's key in place (`install -m 600 FROM TO`, or merge it as a further key), then run again. "
        "Never make a new one in its place.",
        retryable=False,
    ),
    Known(
        "SHW-735",
        "a static pod is started anew while a backup is taken",
        r"shipway-backup\[restarting\]",
        "The manifest of etcd or the API server is not in its place, so the backup would lack it, and with it the name "
        "of the key that Secrets need.",
        "Where nothing starts it anew (`systemctl list-units 'shipway-*'` on the host), a bootstrap says what is lost; "
        "then run again.",
        retryable=True,
    ),
    Known(
        "SHW-737",
        "the control plane did not stop",
        r"shipway-backup\[not-stopped\]",
        "The API server or etcd still ran without their manifests; the message says whether these were put back.",
        "On the host: `systemctl status kubelet; ctr -n k8s.io tasks ls`; once the kubelet runs, run again.",
        retryable=False,
    ),
    Known(
        "SHW-738",
        "the control plane did not come up on the restored data",
        r"shipway-backup\[not-up\]",
        "etcd or the API server does not answer on the restored data.",
        "On the host: `ctr -n k8s.io tasks ls; tail -n 20 /var/log/pods/kube-system_etcd-*/etcd/*.log`; then run the "
        "same restore again, which goes on from there.",
        retryable=False,
    ),
)
