"""Reports on plans: text, HTML pages, and comparison of two plans."""
