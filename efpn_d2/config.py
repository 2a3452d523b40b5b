"""Config nodes of efpn_d2: every key is declared, explained and given its default here."""

from detectron2.config import CfgNode as CN

# Of MODEL.EFPN: Eq. 2 with minimum level 1, and the paper's value for TT100K (1400 px input).
SMALL_BOX_SIZE = 56.0


def add_efpn_config(cfg: CN) -> None:
    """Add the nodes of this package, those of the table below, in place.

    No key of Detectron2 is touched. A key that is already there keeps its value, so calling this
    twice (or after a user's changes) is harmless.

    Args:
        cfg: a Detectron2 config, usually from ``detectron2.config.get_cfg()``.
    """
    for parent, name, build in (
        (cfg.MODEL, "EFPN", _efpn_node),
        (cfg.MODEL, "EFPN_BS", _efpn_bs_node),
        (cfg.MODEL, "SGDM", _sgdm_node),
        (cfg, "DISTILL", _distill_node),
        (cfg, "TRAINING", _training_node),
        (cfg, "COCO_DATA", _coco_data_node),
        (cfg, "DATA", _data_node),
        (cfg, "EVALUATION", _evaluation_node),
        (cfg, "MULTI_SCALE_TEST", _multi_scale_test_node),
    ):
        if name not in parent:
            parent[name] = CN()
        for key, value in build().items():
            parent[name].setdefault(key, value)


def require_node(cfg: CN, name: str) -> CN:
    """A node that :func:`add_efpn_config` adds.

    Args:
        cfg: a config.
        name: the node's path, e.g. ``"MODEL.EFPN"``.

    Raises:
        KeyError: it is not there; the message says what to call.
    """
    node = cfg
    for part in name.split("."):
        if part not in node:
            raise KeyError(
                f"cfg.{name} is missing: call efpn_d2.add_efpn_config(cfg) right after get_cfg(), "
                "before merging a config file."
            )
        node = node[part]
    return node


def check_input_format(cfg: CN) -> None:
    """Check that images come as three channels of colour, which all of this package works on.

    Args:
        cfg: a config.

    Raises:
        ValueError: ``INPUT.FORMAT`` is another one that Detectron2 has.
    """
    if cfg.INPUT.FORMAT not in ("BGR", "RGB"):
        raise ValueError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}: use BGR or RGB, as which grey images are read "
            "with three equal channels."
        )


def _efpn_node() -> CN:
    node = CN()
    # Inside of the extension: "paper" (the article as written), "reference" (the arithmetic of the
    # authors' code: twice the width, boxes duplicated) or "slim" (ours: 3/16 of the channels,
    # texture from the stem).
    node.PRESET = "paper"
    # The map of stride 2 that P'2 has its texture from: "c2_prime" (Eq. 1: stage 2 run again before
    # the max-pooling), "stem_map" (the stem's output before it, which costs nothing), "none", or
    # "auto": the preset's.
    node.TEXTURE = "auto"
    # Channels of P'2; 0: the preset's share of MODEL.FPN.OUT_CHANNELS. Where they are not those of
    # the other levels, P'2 has a dense head of its own.
    node.P2_PRIME_CHANNELS = 0
    # How P'3 is made from P3: "ftt" (Eq. 3), "espcn" (sub-pixel network on P3 alone) or "nearest".
    # The last two are the paper's ablations (Tables II and III).
    node.UPSAMPLER = "ftt"
    # Channels inside FTT; 0: the preset's own (those of P'2; reference: twice those).
    node.WIDTH = 0
    # Residual blocks of the content extractor E_c and the texture extractor E_t; -1: the preset's.
    node.CONTENT_BLOCKS = -1
    node.TEXTURE_BLOCKS = -1
    # Normalisation of the extension's convolutions, as in MODEL.FPN.NORM: "", "BN", "GN", ...
    node.NORM = ""

    # A box with sqrt(w * h) below this many pixels of the network's input is read from P'2 by a
    # head of its own. 56.0 is Eq. 2 with minimum level 1 and the paper's value for TT100K (1400 px
    # input); 112.0 is the paper's value for COCO (800 px input). Write the ".0": configs are typed.
    node.SMALL_BOX_SIZE = SMALL_BOX_SIZE
    # What happens to small boxes: "reassign" (P'2 instead of P2), "duplicate" (both score them and
    # NMS merges), "none" (P'2 is built but no head reads it: exactly the stock heads), or "auto":
    # the preset's ("duplicate" for reference, else "reassign").
    node.ROUTING = "auto"
    # The maps that the heads of small boxes pool from, and concatenate: ["p2_prime"], or
    # ["stem_map", "p2_prime"]. []: the latter where the texture is the stem's, else the former.
    node.SMALL_IN_FEATURES = []
    # Start the heads on P'2 from the stock heads, and P'2's lateral and output convolution from
    # P2's, whenever a loaded checkpoint has those but not these.
    node.INIT_FROM_STOCK = True

    # Backend of torch.compile for the extension, e.g. "inductor"; "": it is not compiled. Tiles of
    # lazy P'2 are not.
    node.COMPILE = ""
    _add_lazy_keys(node)
    _add_anchor_keys(node)
    return node


def _add_lazy_keys(node: CN) -> None:
    # At inference, compute P'2 only around the small boxes that are pooled from it; same weights,
    # and the same detections to float rounding.
    node.LAZY = False
    # Sides of the tiles to choose from for each batch, in cells of P'2 (2 px); multiples of 8.
    node.LAZY_TILE_SIDES = [32, 64, 128]
    # Compute all of P'2 where the tiles would cost more than this share of it, halos included.
    node.LAZY_DENSE_ABOVE = 0.9
    # Drop small proposals of less objectness than this, from 0.0 to 1.0, before P'2 is computed for
    # them. Of the many proposals that detectors keep, most are background, and all over the image.
    node.LAZY_MIN_OBJECTNESS = 0.0
    # With RPN_ON_P2_PRIME, score P'2 only around cells of the level above it whose objectness is at
    # least this, which misses what that level does not see at all; 0.0: score all of P'2.
    node.LAZY_QUERY_THRESHOLD = 0.0


def _add_anchor_keys(node: CN) -> None:
    # Let the RPN propose on P'2 too. Needs MODEL.PROPOSAL_GENERATOR.NAME "EFPNRPN".
    node.RPN_ON_P2_PRIME = False
    # Anchor side lengths on P'2, in pixels of the network's input. As many as each of
    # MODEL.ANCHOR_GENERATOR.SIZES has where P'2 shares the RPN head of the other levels.
    node.P2_PRIME_ANCHOR_SIZES = [16]

    # How the RPN or RetinaNet matches anchors to objects in training: by "iou" (as Detectron2), or
    # for tiny objects "nwd" (normalised Wasserstein distance) or "simd" (similarity distance).
    # Those two need MODEL.PROPOSAL_GENERATOR.NAME "EFPNRPN" or MODEL.META_ARCHITECTURE
    # "EFPNRetinaNet".
    node.SIMILARITY = "iou"
    # nwd: [C], the mean sqrt(w * h) of the objects in pixels of the network's input. simd: [m, n],
    # the mean distance between the centres of an object and an anchor in x and in y, as a share of
    # the sum of their sides. tools/analyze_dataset.py prints both for a data set. iou: [].
    node.SIMILARITY_CONSTANTS = []
    # With nwd and simd, an anchor below the first is background, from the second on an object; []:
    # [0.3, 0.7] in the RPN (as published), [0.4, 0.5] in RetinaNet.
    node.SIMILARITY_THRESHOLDS = []


def _sgdm_node() -> CN:
    node = CN()
    # Stages of the bottom-up network, of res2 ... res5, whose output goes through an SGDM before
    # anything else reads it.
    node.AFTER_STAGES = []
    # Outputs of the pyramid that go through one, e.g. ["p2", "p3"] or ["p2_prime"].
    node.ON_LEVELS = []
    # Without P'2, MODEL.BACKBONE.NAME must be build_resnet_enhanced_fpn_backbone (RetinaNet:
    # build_retinanet_resnet_enhanced_fpn_backbone): Detectron2's own builders read none of this.

    # rho: 1 / rho of the channels are convolved dynamically, the others pass. Divides them.
    node.RAZOR_RATIO = 4
    # k of the dynamic k x k kernels, odd.
    node.KERNEL_SIZE = 3
    # The hidden layer that makes kernels from C channels has C / this.
    node.REDUCTION = 4
    # Static kernels of each shape (1 x k, k x 1, k x k) that all channels of a block share.
    node.SHARED_KERNELS = 4
    # False: dynamic kernels alone, for comparison.
    node.STATIC_GUIDE = True
    return node


def _efpn_bs_node() -> CN:
    """Parts of E-FPN-BS, each of which is a reconstruction from the article's abstract."""
    node = CN()
    # Without P'2, CEM and FBSM need a builder of ours, as MODEL.SGDM does. Of the levels that are
    # named below, those count that the pyramid has: RetinaNet's has no P2.

    # CEM: high levels as context for low ones.
    node.CEM_ENABLED = False
    node.CEM_FROM_LEVELS = ["p5", "p6"]
    # On p2_prime too its parameters are many: with the square of the ratio of the strides.
    node.CEM_TO_LEVELS = ["p2", "p3", "p4"]
    # Channels of a high level once compressed, and once spread to a low level's size.
    node.CEM_COMPRESSED_CHANNELS = 64
    node.CEM_LOCAL_CHANNELS = 16

    # FBSM: each of these levels is amplified where its mask, learnt from its own map, is.
    node.FBSM_ENABLED = False
    node.FBSM_LEVELS = ["p2_prime", "p2", "p3", "p4"]
    # Weight of the masks' distance to the boxes in the total loss; 0.0: masks learn from detection
    # alone. Above 0.0 it needs MODEL.META_ARCHITECTURE EFPNRCNN or EFPNRetinaNet. These log the
    # masks' contrast, too, whatever the weight.
    node.FBSM_MASK_LOSS_WEIGHT = 0.0

    # DCLoss: weigh the losses of objects by size, so that no size dominates the gradients. For RPN,
    # box heads and RetinaNet; needs EFPNRPN and EFPNROIHeads (or the cascade's), or EFPNRetinaNet.
    node.DCLOSS_ENABLED = False
    # The exponent of a weight, at least 0. 0.0: all weights are 1, which is the plain loss bitwise;
    # 1.0: objects of all sizes get the same mean gradient, within the limits below.
    node.DCLOSS_ALPHA = 0.5
    # Share of the past in the moving mean of the gradient of each size, from 0.0 to below 1.0; with
    # TRAINING.ACCUMULATE_GRADIENTS each part of a batch moves it.
    node.DCLOSS_MOMENTUM = 0.9
    # Edges of the size bins in pixels of the network's input, size = sqrt(w * h) of the object,
    # half-open: below 8, [8, 16), [16, 32), 32 and above.
    node.DCLOSS_SIZE_BINS = [8, 16, 32]
    # Limits of a weight, before the weights of a batch are brought to a mean of 1.
    node.DCLOSS_MIN_WEIGHT = 0.5
    node.DCLOSS_MAX_WEIGHT = 2.0
    return node


def _distill_node() -> CN:
    node = CN()
    # What is trained [paper IV-A3]: "" (the detector's own losses, everything at once), "base" (the
    # stock FPN detector), "distill" (the extension alone, by Eq. 5 alone), "head" (the heads on P'2
    # alone, with hard example mining), "joint" (the detector's losses and Eq. 5 together),
    # "finetune" (the detector's losses, after other stages) or "add_on" (the detector's losses, but
    # only what EFPN adds is trained). All but "", "base" and "finetune" need
    # MODEL.META_ARCHITECTURE "DistillationRCNN", and "head" needs MODEL.ROI_HEADS.NAME
    # "OHEMSmallROIHeads"; the commands set both.
    node.STAGE = ""

    # For tools/run_stages.py: the stages in their order, each [stage, iterations, learning rate].
    # SOLVER.STEPS and WARMUP_ITERS are for SOLVER.MAX_ITER iterations and scaled to the stage's.
    node.SCHEDULE = []

    # Eq. 5: the maps that are compared with the teacher's; ["p2_prime"] is the paper's Table IV.
    node.LEVELS = ["p3_prime", "p2_prime"]
    # lambda of Eq. 8; 0: the global loss alone.
    node.POSITIVE_WEIGHT = 1.0
    # Weight of Eq. 5 next to the detector's losses in "joint".
    node.LOSS_WEIGHT = 1.0
    # Where the two views come from: "downsample" (images are loaded at twice INPUT.MIN_SIZE_TRAIN
    # for the teacher, the student's are their 2x2 means) or "upsample" (images are loaded at the
    # student's scale, the teacher's are interpolated: for files without more detail).
    node.VIEW = "downsample"
    # Checkpoint of another teacher with the same architecture; "": the network itself as it is.
    node.TEACHER_WEIGHTS = ""
    # Brightness, contrast and saturation are each multiplied by 1 - x to 1 + x; 0: none.
    node.COLOR_JITTER = 0.0

    # Stage "head": boxes per batch to train on, the hardest first, and the share of objects.
    node.OHEM_BATCH = 128
    node.OHEM_POSITIVE_FRACTION = 0.25
    # Stage "head": train the extension too, as the authors' code does.
    node.UNFREEZE_EXTENSION = False
    return node


def _training_node() -> CN:
    node = CN()
    # Parts that a batch goes through the network in, one after the other, to save memory.
    # SOLVER.IMS_PER_BATCH stays the images of one optimizer step, and an iteration one such step,
    # so no learning rate or schedule changes; per process it must be a multiple of this.
    node.ACCUMULATE_GRADIENTS = 1
    # What SOLVER.AMP.ENABLED computes in: "float16" (with a loss scale) or "bfloat16" (without).
    node.AMP_PRECISION = "float16"
    return node


def _coco_data_node() -> CN:
    node = CN()
    # Data sets to register before use: a list of [name, path of the COCO JSON, image folder].
    # Relative paths are looked up in $DETECTRON2_DATASETS, then in the working directory.
    node.REGISTER = []
    return node


def _data_node() -> CN:
    """What a training makes of its images, in all stages; all of it is off by default."""
    node = CN()
    # Repeat images so that each class has about this many objects per epoch [paper IV-A3: 1000],
    # but no image more often than that. A rare class needs instances / its objects repeats.
    node.BALANCE_CLASSES = False
    node.BALANCE_INSTANCES = 1000
    node.BALANCE_MAX_REPEAT = 20.0

    # Brightness, contrast and saturation are each multiplied by 1 - x to 1 + x; 0.0: none.
    node.COLOR_JITTER = 0.0
    # Multiply the size of the input, after INPUT.MIN_SIZE_TRAIN, by a factor from this range, e.g.
    # [0.8, 1.25]; []: none. With DISTILL.VIEW downsample the teacher's view is twice that.
    node.SCALE_JITTER = []

    # Copy small objects to other places of their image: the chance of an image to get copies, and
    # how many at most. 0.0: none.
    node.COPY_PASTE_PROBABILITY = 0.0
    node.COPY_PASTE_MAX_COPIES = 4
    # Only objects with sqrt(w * h) below this are copied, in pixels of the image file.
    node.COPY_PASTE_MAX_SIZE = 32.0
    # The share of any other object's box that a copy may cover, from 0.0 to below 1.0.
    node.COPY_PASTE_MAX_COVER = 0.0
    return node


def _evaluation_node() -> CN:
    node = CN()
    # Edges of the object-size bins in pixels of the annotation, size = sqrt(area), half-open:
    # [0, 8, 16, 32] reports AP for [0, 8), [8, 16), [16, 32) and [32, inf). Empty: COCO's
    # small / medium / large only.
    node.SIZE_BINS = []
    # The rules: "coco", "aitod", "sodad", "tinyperson", "tt100k" or "visdrone"; docs/evaluation.md
    # has them all. "": those of the data set's metadata; if these are COCO's, with AP at
    # TEST.DETECTIONS_PER_IMAGE instead of 100 detections.
    node.PROTOCOL = ""
    # In place of the protocol's own, for those of the COCO family: ascending IoU thresholds that AP
    # is a mean over, and ascending limits of detections per image and class, of which AP takes the
    # last. Empty: as the protocol says.
    node.IOU_THRESHOLDS = []
    node.MAX_DETS = []
    # What computes COCO's numbers: "hotcoco", "faster-coco-eval", "pycocotools", or "auto": the
    # first of them that is installed. They agree to rounding.
    node.BACKEND = "auto"
    # For "tt100k": names of the evaluated classes (empty: those of the data set's metadata, else
    # the 45 of its release), and score thresholds in [0, 1] to report besides the best one.
    node.CLASSES = []
    node.SCORE_THRESHOLDS = [0.4]
    # Write a page for the browser at the end of every evaluation of a set in COCO format, into
    # report_<data set>/index.html beside the predictions; see tools/report.py.
    node.REPORT = False
    return node


def _multi_scale_test_node() -> CN:
    """Beside Detectron2's TEST.AUG, which switches the test on and has its scales."""
    node = CN()
    # What decides at each scale whether a box is read from P'2: "input" (its size in pixels of the
    # network's input, as in training: an object that is small at 1x is read from P2 at 2x) or
    # "object" (SMALL_BOX_SIZE grows with the scale, from that of INPUT.MIN_SIZE_TEST: the same
    # objects are read from P'2 at every scale).
    node.ROUTE_BY = "input"
    return node
