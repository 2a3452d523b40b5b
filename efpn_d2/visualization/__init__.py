"""Pictures of what a detector found and missed. Pillow, numpy; nothing here needs a model."""
