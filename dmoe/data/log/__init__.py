"""Any team's click log, described by a schema file, as a data set: `dmoe preprocess log` and `avazu`."""
