"""What became of every detection and every object, and the counts of it."""
