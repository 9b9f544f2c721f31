"""The files of a log, and their bytes in pieces of whole rows."""
