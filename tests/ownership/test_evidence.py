"""The evidence of a failed kubeadm names what died: also a runtime that is down, beneath a kubelet's goroutines."""

from __future__ import annotations

from typing import Any

from shipway.script import Output
from shipway.steps.kubernetes.evidence import CONTAINERS, KUBELET, PODS, TASKS, collect_evidence
from tests.places.facts import KnownFacts

WAITED = "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster\n"
JOURNAL = (
    "F1125 21:10:02.1 1843 server.go:269] failed to run Kubelet: connection lost\n"
    "goroutine 1 [running]:\nruntime.goexit()\n\t/usr/lib/go-1.19/src/runtime/asm_amd64.s:1594 +0x1\n"
    "created by k8s.io/kubernetes/pkg/kubelet.NewMainKubelet\n"
    "kubelet.service: Main process exited, code=exited, status=255/EXCEPTION\n"
)
DOWN = (
    "connect: connect endpoint 'unix:///run/containerd/containerd.sock', make sure you are running as root and the "
    "endpoint has been started: context deadline exceeded\n"
)


async def test_a_runtime_that_is_down_is_named_and_goroutines_are_not_quoted() -> None:
    answers = {KUBELET: Output(0, JOURNAL, ""), CONTAINERS: Output(1, "", DOWN), PODS: Output(0, "", "")}
    host: Any = KnownFacts(answers)
    error = await collect_evidence(host, "kubeadm init", Output(1, WAITED, ""))
    assert error.code == "SHW-433"
    assert "failed to run Kubelet: connection lost\nkubelet.service: Main process exited" in error.message
    assert "goroutine" not in error.message
    assert "goexit" not in error.message


async def test_without_crictl_containerd_itself_says_what_runs() -> None:
    missing = Output(127, "", "timeout: failed to run command 'crictl': No such file or directory")
    tasks = "TASK    PID     STATUS\n1f0c    2211    STOPPED\n"
    answers = {
        KUBELET: Output(0, JOURNAL, ""),
        CONTAINERS: missing,
        PODS: Output(0, "", ""),
        TASKS: Output(0, tasks, ""),
    }
    host: Any = KnownFacts(answers)
    error = await collect_evidence(host, "kubeadm init", Output(1, WAITED, ""))
    assert "1f0c    2211    STOPPED" in error.message
    assert "failed to run command" not in error.message
