"""The container lab: real multi-host clusters on one machine, in systemd containers that look like servers."""
