"""Finds the files of a log, and reads them in pieces of whole rows."""
