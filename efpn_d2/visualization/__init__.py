"""Visualization of detections and errors, with Pillow and NumPy and independent of any model."""
