"""What a site has around the hosts: proxies, registries, and the addresses that must be reached."""
