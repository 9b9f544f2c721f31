"""Any team's click log, described by a schema file, as a data set: `tools/preprocess.py log` and `avazu`."""
