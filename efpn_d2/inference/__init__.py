"""Running a trained detector on images."""

from efpn_d2.inference.class_names import find_class_names
from efpn_d2.inference.drawing import DrawingPredictor
from efpn_d2.inference.predictor import EFPNPredictor, load_inference_config

__all__ = ["DrawingPredictor", "EFPNPredictor", "find_class_names", "load_inference_config"]
