"""Tests of kubeadm, the Kubernetes client, objects, drains."""
