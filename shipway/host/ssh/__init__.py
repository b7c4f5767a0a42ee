"""SSH: one connection per host for a whole run, and every asyncssh error as ours; nothing else imports asyncssh."""

from shipway.host.ssh import imported  # before the others: it decides how asyncssh is imported

# isort: split
from shipway.host.ssh.connection import Connection
from shipway.host.ssh.pool import Pool, Roads

__all__ = ["Connection", "Pool", "Roads", "imported"]
