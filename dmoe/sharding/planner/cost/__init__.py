"""What a plan costs: a table's candidates, their time and memory, the step that a plan predicts."""
