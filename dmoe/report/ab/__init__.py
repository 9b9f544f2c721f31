"""An online A/B test: how large it has to be, and what its exposures and clicks say."""
