"""The API's address for clients outside, which one control plane holds: free, in its network, held by one."""
