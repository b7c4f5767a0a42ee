"""The controllers, the scheduler and the kubelets of a simulated cluster, all driven by changes in the store."""
