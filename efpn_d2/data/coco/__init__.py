"""Facts about COCO-format files: names, keypoints, and records that cannot be used."""
