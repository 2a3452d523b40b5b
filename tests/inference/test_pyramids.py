import pytest
import torch

from efpn_d2.inference.pyramids import PyramidSource, load_pyramid, parse_pyramid_source
from tests.inference.tiny_pyramid import write_pyramid

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FTT=a/config.yaml:b/model.pth", ("FTT", "a/config.yaml", "b/model.pth")),
        (
            "FTT, seed 1=c.yaml:https://x/y.pth?a=b",
            ("FTT, seed 1", "c.yaml", "https://x/y.pth?a=b"),
        ),
    ],
)
def test_a_source_is_label_config_and_weights(text, expected):
    assert parse_pyramid_source(text) == expected


@pytest.mark.parametrize("text", ["a.yaml:b.pth", "=a.yaml:b.pth", "FTT=a.yaml", "FTT=:b.pth", ""])
def test_a_source_that_lacks_a_part_is_refused(text):
    with pytest.raises(ValueError, match=f"'{text}' does not name a model: write LABEL=CONFIG:W"):
        parse_pyramid_source(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c.yaml:b/model.pth", ("b/model.pth", "c.yaml", "b/model.pth")),
        ("c.yaml:https://x/y.pth?a=b", ("https://x/y.pth?a=b", "c.yaml", "https://x/y.pth?a=b")),
        ("c.yaml:lr=1/m.pth", ("lr=1/m.pth", "c.yaml", "lr=1/m.pth")),
        ("FTT=c.yaml:lr=1/m.pth", ("FTT", "c.yaml", "lr=1/m.pth")),
    ],
)
def test_a_label_may_be_optional(text, expected):
    assert parse_pyramid_source(text, needs_label=False) == expected


@pytest.mark.parametrize("text", ["c.yaml", "=c.yaml:b.pth", ":b.pth", "A=c.yaml:", ""])
def test_config_and_weights_are_never_optional(text):
    with pytest.raises(ValueError, match=f"'{text}' .*write CONFIG:WEIGHTS or LABEL=CONFIG:WEI"):
        parse_pyramid_source(text, needs_label=False)


def test_weights_are_those_of_the_file_and_the_model_is_in_evaluation_mode(tmp_path):
    source, weights = write_pyramid(tmp_path, "FTT")
    cfg, model = load_pyramid(source, ["INPUT.MIN_SIZE_TEST", "77"])
    assert cfg.INPUT.MIN_SIZE_TEST == 77
    assert not any(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key


def rewrite(source: PyramidSource, keep) -> None:
    weights = torch.load(source.weights)["model"]
    torch.save({"model": {k: v for k, v in weights.items() if keep(k)}}, source.weights)


def test_a_checkpoint_without_the_extended_level_is_good_for_a_teacher_only(tmp_path):
    source, _ = write_pyramid(tmp_path, "FTT")
    rewrite(source, lambda key: not key.startswith("backbone.extension."))
    with pytest.raises(ValueError, match="lacks fitting weights of the extended level of .*stage"):
        load_pyramid(source)
    load_pyramid(source, stock_only=True)
    rewrite(source, lambda key: "fpn_output2" not in key)
    with pytest.raises(ValueError, match="lacks 2 tensors that fit the backbone of .*fpn_output2"):
        load_pyramid(source, stock_only=True)


def test_the_checkpoint_of_another_upsampler_is_refused(tmp_path):
    ftt, _ = write_pyramid(tmp_path, "FTT")
    espcn, _ = write_pyramid(tmp_path, "ESPCN", **{"MODEL.EFPN.UPSAMPLER": "espcn"})
    load_pyramid(espcn)
    with pytest.raises(ValueError, match="lacks fitting weights of the extended level"):
        load_pyramid(ftt._replace(weights=espcn.weights))


@pytest.mark.parametrize(
    "options",
    [
        {
            "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
            "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        },
        {
            "MODEL.BACKBONE.NAME": "build_retinanet_resnet_efpn_backbone",
            "MODEL.META_ARCHITECTURE": "RetinaNet",
            "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
            "MODEL.ANCHOR_GENERATOR.SIZES": [[32]],
        },
    ],
)
def test_a_config_of_another_pyramid_is_refused(tmp_path, options):
    source, _ = write_pyramid(tmp_path, "FTT", **options)
    with pytest.raises(ValueError, match="builds no pyramid with both P2 and P'2"):
        load_pyramid(source)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    source, _ = write_pyramid(tmp_path, "FTT")
    with pytest.raises(FileNotFoundError, match="There is no file of weights"):
        load_pyramid(source._replace(weights=str(tmp_path / "none.pth")))
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(ValueError, match="text.pth' cannot be read as a checkpoint"):
        load_pyramid(source._replace(weights=str(tmp_path / "text.pth")))
