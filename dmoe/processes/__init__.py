"""What dmoe needs of processes: signs of life, interrupts, the meeting place of ranks, and the heap."""
