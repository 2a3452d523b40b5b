"""Helpers that know nothing of detection: files, logs, records of runs, command lines."""
