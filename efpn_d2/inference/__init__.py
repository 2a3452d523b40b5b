"""Running a trained detector on images."""

from .class_names import find_class_names
from .drawing import DrawingPredictor
from .predictor import EFPNPredictor, load_inference_config

__all__ = ["DrawingPredictor", "EFPNPredictor", "find_class_names", "load_inference_config"]
