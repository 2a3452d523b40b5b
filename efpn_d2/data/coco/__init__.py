"""COCO-format files: class names, keypoints and checks of records."""
