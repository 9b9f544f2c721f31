"""Online A/B tests: plans the size of a test, and analyzes its exposures and clicks."""
