"""Data sets and how images become input. Importing it registers no data set."""
