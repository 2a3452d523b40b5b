from .distillation import DistillationRCNN

__all__ = ["DistillationRCNN"]
