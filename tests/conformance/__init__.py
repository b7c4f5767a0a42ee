"""One suite of commands with recorded real answers, run against every lab: an answer that differs fails."""
