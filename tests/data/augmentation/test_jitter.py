import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from efpn_d2.config import add_efpn_config
from efpn_d2.data.augmentation import color_jitter, with_scale_jitter
from efpn_d2.data.mappers import DetectionMapper, build_distillation_mapper, build_train_mapper

pytestmark = pytest.mark.fast


@pytest.fixture
def cfg():
    config = get_cfg()
    add_efpn_config(config)
    config.INPUT.MIN_SIZE_TRAIN = (100,)
    config.INPUT.MAX_SIZE_TRAIN = 200
    return config


def augmentations(mapper):
    return mapper.augmentations.augs


def test_without_options_it_is_detectron2s_mapper(cfg):
    mapper = build_train_mapper(cfg)
    stock = DatasetMapper(cfg, is_train=True)
    assert type(mapper) is DetectionMapper
    assert repr(mapper.augmentations) == repr(stock.augmentations)
    assert with_scale_jitter(cfg) is cfg


@pytest.mark.parametrize(
    "build", [build_train_mapper, lambda cfg: build_distillation_mapper(cfg).mapper]
)
def test_colour_jitter_in_both_mappers(cfg, build):
    cfg.DATA.COLOR_JITTER = 0.25
    kinds = (T.RandomBrightness, T.RandomContrast, T.RandomSaturation)
    for augmentation, kind in zip(augmentations(build(cfg))[-3:], kinds, strict=True):
        assert isinstance(augmentation, kind)
        assert (augmentation.intensity_min, augmentation.intensity_max) == (0.75, 1.25)


def test_colour_jitter_is_set_once(cfg):
    cfg.DATA.COLOR_JITTER = cfg.DISTILL.COLOR_JITTER = 0.25
    assert len(augmentations(build_train_mapper(cfg))) == 5  # resize, flip, three colours
    with pytest.raises(ValueError, match="are both set"):
        build_distillation_mapper(cfg)


@pytest.mark.parametrize("strength", [-0.1, 1.0, 2])
def test_colour_jitter_out_of_range(strength):
    with pytest.raises(ValueError, match=f"DATA.COLOR_JITTER is {strength}"):
        color_jitter(strength)


@pytest.mark.parametrize(
    "build, key, scale",
    [
        (build_train_mapper, "image", 1),
        (build_distillation_mapper, "image", 1),
        (build_distillation_mapper, "teacher_image", 2),
    ],
)
def test_scale_jitter_gives_sizes_of_the_range(cfg, tmp_path, build, key, scale):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    cfg.DATA.SCALE_JITTER = [0.5, 1.5]
    cfg.DISTILL.VIEW = "downsample"
    mapper = build(cfg)
    np.random.seed(0)
    record = {"file_name": str(tmp_path / "a.png"), "width": 50, "height": 40}
    heights = [mapper(dict(record))[key].shape[1] for _ in range(60)]
    assert scale * 50 <= min(heights) < scale * 60
    assert scale * 140 < max(heights) <= scale * 150
    assert len(set(heights)) > 20


def test_scale_jitter_leaves_the_config_alone_and_raises_the_limit(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (80, 100)
    cfg.DATA.SCALE_JITTER = [0.5, 1.5]
    cfg.freeze()
    jittered = with_scale_jitter(cfg)
    assert jittered.INPUT.MIN_SIZE_TRAIN == (40, 150)
    assert jittered.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
    assert jittered.INPUT.MAX_SIZE_TRAIN == 300
    assert cfg.INPUT.MIN_SIZE_TRAIN == (80, 100)


@pytest.mark.parametrize("factors", [[0.5], [1.5, 0.5], [0.0, 1.0], [0.5, 1.0, 1.5]])
def test_scale_jitter_out_of_range(cfg, factors):
    cfg.DATA.SCALE_JITTER = factors
    with pytest.raises(ValueError, match="DATA.SCALE_JITTER is"):
        build_train_mapper(cfg)


def test_scale_jitter_without_resizing(cfg):
    cfg.DATA.SCALE_JITTER = [0.5, 1.5]
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    with pytest.raises(ValueError, match="needs INPUT.MIN_SIZE_TRAIN"):
        build_train_mapper(cfg)
