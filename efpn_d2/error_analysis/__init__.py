"""Classification of detections and objects by error type, and counts of the errors."""
