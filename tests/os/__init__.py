"""What every family of operating systems must do, and that nothing outside shipway/os knows one."""
