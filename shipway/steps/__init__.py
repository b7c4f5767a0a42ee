"""What should be: steps that look at facts and change a host or the cluster."""
