"""Places to rehearse: a simulated cluster without root, and real hosts in containers."""
