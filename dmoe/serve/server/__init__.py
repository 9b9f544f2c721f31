"""An HTTP server for exported scorers: the KServe v2 inference protocol, and raw rows as JSON or Arrow."""
