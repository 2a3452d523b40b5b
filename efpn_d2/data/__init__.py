"""Datasets and data loading. Importing this package registers no dataset."""
