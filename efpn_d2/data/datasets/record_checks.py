"""The first record of COCO-format content that cannot be read, said in one sentence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from typing import Any

_REMEDY = "correct or remove it"
_PREPARE = "correct it, or let tools/prepare_dataset.py name all such records"


@dataclass(frozen=True)
class Kind:
    """What a field may hold.

    Attributes:
        problem: of a value, what is wrong with it; empty if nothing is.
        are_plain: whether all of many values are right, by types alone and so in far less time; may
            say no to values that are right.
    """

    problem: Callable[[Any], str]
    are_plain: Callable[[list[Any]], bool]


@dataclass(frozen=True)
class Field:
    """A field of a record."""

    name: str
    kind: Kind
    required: bool = True


def check_content(content: Any, source: str, **fields: Sequence[Field]) -> None:
    """Check the lists of a COCO JSON.

    Args:
        content: the parsed file.
        source: what it is called in messages.
        fields: by the name of a list, what its records need.

    Raises:
        ValueError: a list is missing, or see :func:`check_records`.
    """
    for part, needed in fields.items():
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise ValueError(
                f"{source} is no COCO JSON: it must be an object with the list '{part}'."
            )
        check_records(content[part], f"{part}[{{}}] of {source}", needed, _PREPARE)


def check_records(
    records: Sequence[Any], where: str, fields: Sequence[Field], remedy: str = _REMEDY
) -> None:
    """Check a list of COCO's records.

    Args:
        records: the list.
        where: what a record is called in messages; its index takes the place of ``{}``.
        fields: what each needs.
        remedy: the end of a message, what to do.

    Raises:
        ValueError: a record is no object, or a field is missing or holds something else; the
            message names the first by its index.
    """
    if set(map(type, records)) <= {dict} and all(_are_plain(records, field) for field in fields):
        return
    for number, record in enumerate(records):
        place = where.format(number)
        if not isinstance(record, dict):
            names = ", ".join(dict.fromkeys(f.name for f in fields if f.required))
            raise ValueError(
                f"{place} is {record!r}, but must be an object with {names}: {remedy}."
            )
        for field in fields:
            problem = _field_problem(record, field)
            if problem:
                raise ValueError(f"{place} has {problem}: {remedy}.")


def check_same_kind(ids: Sequence[int | str], source: str) -> None:
    """Check that ids of images have an order, which Detectron2 brings them into.

    Args:
        ids: numbers and texts.
        source: what the file is called in the message.

    Raises:
        ValueError: there are some of both.
    """
    kinds = {isinstance(id, str): id for id in ids}
    if len(kinds) > 1:
        raise ValueError(
            f"'{source}' has numbers and texts as ids of images, such as {kinds[False]!r} and "
            f"{kinds[True]!r}, which have no order: use one kind."
        )


def _are_plain(records: Sequence[dict[str, Any]], field: Field) -> bool:
    values = [record[field.name] for record in records if field.name in record]
    all_there = len(values) == len(records) or not field.required
    return all_there and field.kind.are_plain(values)


def _field_problem(record: dict[str, Any], field: Field) -> str:
    if field.name not in record:
        return f"no {field.name}" if field.required else ""
    value = record[field.name]
    problem = field.kind.problem(value)
    return f"the {field.name} {value!r}, which must {problem}" if problem else ""


def one_of(known: set[Any], what: str) -> Kind:
    """A field that must be one of some ids."""
    return Kind(
        lambda v: "" if _is_id(v) and v in known else f"be {what}",
        lambda values: set(map(type, values)) <= {int, str} and set(values) <= known,
    )


def _are_of(*types: type) -> Callable[[list[Any]], bool]:
    return lambda values: set(map(type, values)) <= set(types)


def _are_finite(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int, float} and all(map(math.isfinite, values))


def _are_boxes(values: list[Any]) -> bool:
    if not (set(map(type, values)) <= {list, tuple} and set(map(len, values)) <= {4}):
        return False
    # All finite, and no width or height below 0.
    return _are_finite(list(chain.from_iterable(values))) and all(
        w >= 0 and h >= 0 for _, _, w, h in values
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _box_problem(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(_is_number, value)):
        return "be four finite numbers [x, y, width, height]"
    negative = value[2] < 0 or value[3] < 0
    return "be [x, y, width, height], neither of the last two negative" if negative else ""


def _is_id(value: Any) -> bool:
    return isinstance(value, (Integral, str)) and not isinstance(value, bool)


INTEGER = Kind(
    lambda v: "" if _is_id(v) and not isinstance(v, str) else "be an integer", _are_of(int)
)
ID = Kind(lambda v: "" if _is_id(v) else "be an integer or a string", _are_of(int, str))
NAME = Kind(lambda v: "" if isinstance(v, str) else "be a text", _are_of(str))
NUMBER = Kind(lambda v: "" if _is_number(v) else "be a finite number", _are_finite)
SIDE = Kind(
    lambda v: "" if _is_number(v) and v > 0 else "be a number above 0",
    lambda values: _are_finite(values) and min(values, default=1) > 0,
)
FLAG = Kind(
    lambda v: "" if v in (0, 1) else "be 0 or 1",
    lambda values: set(map(type, values)) <= {int, bool} and set(values) <= {0, 1},
)
BOX = Kind(_box_problem, _are_boxes)
MASK = Kind(
    lambda v: "" if isinstance(v, (list, dict)) else "be polygons or a run-length encoding",
    _are_of(list, dict),
)

IMAGE = (Field("id", ID),)
SIZE = (Field("height", SIDE), Field("width", SIDE))
CATEGORY = (Field("id", INTEGER), Field("name", NAME))
ANNOTATION = (Field("image_id", ID), Field("category_id", INTEGER), Field("bbox", BOX))
RESULT = (*ANNOTATION, Field("score", NUMBER))
