"""Engines that run the tasks of a stage: threads of this process, or Ray workers."""
