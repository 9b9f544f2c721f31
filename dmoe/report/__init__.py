"""Reads finished runs and makes reports of them: tables and pages."""
