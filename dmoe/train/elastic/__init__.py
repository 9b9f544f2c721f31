"""What keeps a job of several ranks alive or ends it cleanly: rendezvous, watchdog, preemption, exit codes."""
