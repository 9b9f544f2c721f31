"""Fault handling for jobs with several ranks: watchdog, preemption, exit codes."""
