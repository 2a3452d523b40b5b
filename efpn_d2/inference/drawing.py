"""A detector that answers with a picture."""

import numpy as np
from detectron2.config import CfgNode

from efpn_d2.inference.class_names import find_class_names
from efpn_d2.inference.image_arrays import to_bgr
from efpn_d2.inference.predictor import EFPNPredictor
from efpn_d2.visualization.instances import draw_detections


class DrawingPredictor:
    """Detects objects in an image and draws them."""

    def __init__(self, cfg: CfgNode, zoom: int = 1) -> None:
        """
        Args:
            cfg: see :class:`EFPNPredictor`; for the names of classes see :func:`find_class_names`.
            zoom: whole factor by which pictures are enlarged.
        """
        self._class_names = find_class_names(cfg)
        self._predictor = EFPNPredictor(cfg)
        self._zoom = zoom

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, int]:
        """
        Args:
            image: as :class:`EFPNPredictor` takes it.

        Returns:
            The (H * zoom, W * zoom, 3) uint8 BGR picture, and the number of detections.

        Raises:
            ValueError: it is no such image.
        """
        image = to_bgr(image)
        found = self._predictor(image)["instances"].to("cpu")
        picture = draw_detections(
            image[:, :, ::-1],
            found.pred_boxes.tensor.numpy(),
            found.scores.numpy(),
            found.pred_classes.numpy(),
            self._class_names,
            found.pred_masks.numpy() if found.has("pred_masks") else None,
            zoom=self._zoom,
        )
        return np.ascontiguousarray(picture[:, :, ::-1]), len(found)
