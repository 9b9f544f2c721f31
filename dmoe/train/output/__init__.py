"""What a run says while it trains: lines, metrics files, traces."""
