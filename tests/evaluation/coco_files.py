"""COCO files, and results on them, for the tests of the evaluators."""

import json

import torch
from detectron2.structures import Boxes, Instances

from tests.evaluation.boxes import random_image


def annotation(number, image_id, category_id, bbox, **fields):
    area = bbox[2] * bbox[3]
    entry = {"id": number, "image_id": image_id, "category_id": category_id, "iscrowd": 0}
    return entry | {"bbox": list(bbox), "area": area} | fields


def dataset(annotations, num_images=1, names=("a", "b", "c"), size=400):
    images = [
        {"id": i, "file_name": f"{i}.png", "width": size, "height": size}
        for i in range(1, num_images + 1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def random_dataset(rng, num_images=8):
    """A data set with crowds and annotated areas below those of the boxes, and results."""
    annotations, results = [], []
    for image_id in range(1, num_images + 1):
        annotated, detected = random_image(rng)
        for box, label in zip(annotated.boxes.tolist(), annotated.classes.tolist(), strict=True):
            fields = {"iscrowd": int(rng.random() < 0.15)}
            fields["area"] = box[2] * box[3] * float(rng.choice([1, 1, 0.5]))
            annotations.append(annotation(len(annotations) + 1, image_id, label, box, **fields))
        rows = zip(
            detected.boxes.tolist(),
            detected.classes.tolist(),
            detected.scores.tolist(),
            strict=True,
        )
        for box, label, score in rows:
            results.append(
                {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            )
    return dataset(annotations, num_images), results


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def instances(rows, size=400):
    """From rows of contiguous class, score, x, y, width and height."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    result = Instances((size, size))
    result.pred_classes, result.scores = table[:, 0].long(), table[:, 1]
    result.pred_boxes = Boxes(torch.cat([table[:, 2:4], table[:, 2:4] + table[:, 4:]], dim=1))
    return result


def run(evaluator, predictions, img_ids=None):
    """Evaluate :func:`instances` by image id."""
    evaluator.reset()
    for image_id, prediction in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": prediction}])
    return evaluator.evaluate(img_ids=img_ids)
