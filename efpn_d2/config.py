"""Config nodes of efpn_d2, with the defaults and a description of every key."""

from detectron2.config import CfgNode as CN

# Default of MODEL.EFPN.SMALL_BOX_SIZE: Eq. 2 with minimum level 1, the paper's value for TT100K
# (1400 px input).
SMALL_BOX_SIZE = 56.0


def add_efpn_config(cfg: CN) -> None:
    """Add the config nodes of this package to ``cfg``, in place.

    No key of Detectron2 is changed. Existing keys keep their values, so this can be called more
    than once.

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
    """Return a node that :func:`add_efpn_config` adds.

    Args:
        cfg: a config.
        name: path of the node, e.g. ``"MODEL.EFPN"``.

    Raises:
        KeyError: if the node is missing; the message says how to add it.
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
    """Check that images have three color channels, which this package requires.

    Raises:
        ValueError: if ``INPUT.FORMAT`` is neither BGR nor RGB.
    """
    if cfg.INPUT.FORMAT not in ("BGR", "RGB"):
        raise ValueError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}: use BGR or RGB; gray images are then read with "
            "three equal channels."
        )


def _efpn_node() -> CN:
    node = CN()
    # Design of the extension: "paper" (as in the article), "reference" (as in the authors' code:
    # twice the width, boxes duplicated) or "slim" (ours: 3/16 of the channels, texture from the
    # stem).
    node.PRESET = "paper"
    # Feature map of stride 2 that gives P'2 its texture: "c2_prime" (Eq. 1: stage 2 applied before
    # the max-pooling), "stem_map" (the stem's output before the max-pooling, at no cost), "none",
    # or "auto" (chosen by the preset).
    node.TEXTURE = "auto"
    # Number of channels of P'2; 0: the preset's share of MODEL.FPN.OUT_CHANNELS. If it differs from
    # that of the other levels, P'2 has its own dense head.
    node.P2_PRIME_CHANNELS = 0
    # How P'3 is computed from P3: "ftt" (Eq. 3), "espcn" (sub-pixel network on P3 alone) or
    # "nearest", the last two being the paper's ablations (Tables II and III), or the name of a
    # class in UPSAMPLER_REGISTRY.
    node.UPSAMPLER = "ftt"
    # Number of channels inside FTT; 0: chosen by the preset (those of P'2; reference: twice those).
    node.WIDTH = 0
    # Number of residual blocks in the content extractor E_c and the texture extractor E_t; -1:
    # chosen by the preset.
    node.CONTENT_BLOCKS = -1
    node.TEXTURE_BLOCKS = -1
    # Normalization of the extension's convolutions, as in MODEL.FPN.NORM: "", "BN", "GN", ...
    node.NORM = ""

    # Boxes with sqrt(w * h) below this size, in pixels of the network's input, are pooled from P'2
    # by a separate head. 56.0 is Eq. 2 with minimum level 1 and the paper's value for TT100K (1400
    # px input); 112.0 is the paper's value for COCO (800 px input). Write the ".0": configs are
    # typed.
    node.SMALL_BOX_SIZE = SMALL_BOX_SIZE
    # Routing of small boxes: "reassign" (to P'2 instead of P2), "duplicate" (both score them and
    # NMS merges the results), "none" (P'2 is built but not read: the stock heads), or "auto"
    # (chosen by the preset: "duplicate" for reference, otherwise "reassign").
    node.ROUTING = "auto"
    # Rule that says which boxes are small: "SizeRouter", by SMALL_BOX_SIZE, or the name of another
    # class in BOX_ROUTER_REGISTRY.
    node.ROUTER = "SizeRouter"
    # Features that the small heads pool and concatenate: ["p2_prime"], or ["stem_map", "p2_prime"].
    # []: the latter if the texture is "stem_map", otherwise the former.
    node.SMALL_IN_FEATURES = []
    # Initialize the heads on P'2 from the stock heads, and the lateral and output convolutions of
    # P'2 from those of P2, if a loaded checkpoint lacks them.
    node.INIT_FROM_STOCK = True

    # Backend of torch.compile for the extension, e.g. "inductor"; "": not compiled. The tiles of
    # lazy P'2 are never compiled.
    node.COMPILE = ""
    _add_lazy_keys(node)
    _add_anchor_keys(node)
    return node


def _add_lazy_keys(node: CN) -> None:
    # At inference, compute P'2 only around the small boxes that are pooled from it. The weights are
    # the same, and the detections are the same up to rounding.
    node.LAZY = False
    # Tile sizes to choose from for each batch, in cells of P'2 (2 px); multiples of 8.
    node.LAZY_TILE_SIDES = [32, 64, 128]
    # Compute all of P'2 if the tiles, including halos, would cost more than this fraction of it.
    node.LAZY_DENSE_ABOVE = 0.9
    # Drop small proposals whose objectness is below this value, in [0.0, 1.0], before P'2 is
    # computed for them. Most of the proposals that a detector keeps are background, spread over the
    # whole image.
    node.LAZY_MIN_OBJECTNESS = 0.0
    # With RPN_ON_P2_PRIME, score P'2 only around cells of the next coarser level whose objectness
    # is at least this value; objects missed on that level are missed on P'2. 0.0: score all of P'2.
    node.LAZY_QUERY_THRESHOLD = 0.0


def _add_anchor_keys(node: CN) -> None:
    # Let the RPN propose boxes on P'2 too. Requires MODEL.PROPOSAL_GENERATOR.NAME "EFPNRPN".
    node.RPN_ON_P2_PRIME = False
    # Anchor sizes on P'2, in pixels of the network's input. Use as many as in each entry of
    # MODEL.ANCHOR_GENERATOR.SIZES if P'2 shares the RPN head of the other levels.
    node.P2_PRIME_ANCHOR_SIZES = [16]

    # Similarity for assigning anchors to ground truth in the RPN or RetinaNet: "iou" (as in
    # Detectron2), or for tiny objects "nwd" (normalized Wasserstein distance) or "simd" (similarity
    # distance). The last two require MODEL.PROPOSAL_GENERATOR.NAME "EFPNRPN" or
    # MODEL.META_ARCHITECTURE "EFPNRetinaNet".
    node.SIMILARITY = "iou"
    # nwd: [C], the mean sqrt(w * h) of the objects in pixels of the network's input. simd: [m, n],
    # the mean distance in x and in y between the centers of an object and an anchor, relative to
    # the sum of their sides. tools/analyze_dataset.py prints both for a dataset. iou: [].
    node.SIMILARITY_CONSTANTS = []
    # For nwd and simd: an anchor below the first threshold is background, an anchor at or above the
    # second is foreground. []: [0.3, 0.7] in the RPN (as published), [0.4, 0.5] in RetinaNet.
    node.SIMILARITY_THRESHOLDS = []


def _sgdm_node() -> CN:
    node = CN()
    # Stages of the bottom-up network, from res2 to res5, whose output is passed through an SGDM
    # before any other module reads it.
    node.AFTER_STAGES = []
    # Outputs of the pyramid that are passed through an SGDM, e.g. ["p2", "p3"] or ["p2_prime"].
    node.ON_LEVELS = []
    # Without P'2, MODEL.BACKBONE.NAME must be build_resnet_enhanced_fpn_backbone (RetinaNet:
    # build_retinanet_resnet_enhanced_fpn_backbone), since Detectron2's builders ignore this node.

    # rho: 1 / rho of the channels are convolved dynamically, the others are passed through. Must
    # divide the channels.
    node.RAZOR_RATIO = 4
    # Size k of the dynamic k x k kernels; odd.
    node.KERNEL_SIZE = 3
    # Reduction ratio of the MLP that generates kernels from C channels: its hidden layer has C /
    # this.
    node.REDUCTION = 4
    # Number of static kernels of each shape (1 x k, k x 1, k x k) that the channels of a block
    # share.
    node.SHARED_KERNELS = 4
    # Whether static kernels guide the dynamic ones; False: dynamic kernels alone, for comparison.
    node.STATIC_GUIDE = True
    return node


def _efpn_bs_node() -> CN:
    """Return the node of E-FPN-BS, whose parts are reconstructed from the article's abstract."""
    node = CN()
    # Without P'2, CEM and FBSM require one of our backbone builders, as MODEL.SGDM does. Levels
    # named below that the pyramid lacks are skipped: RetinaNet's has no P2.

    # CEM: use high levels as context for low levels.
    node.CEM_ENABLED = False
    node.CEM_FROM_LEVELS = ["p5", "p6"]
    # CEM on p2_prime has many parameters: they grow with the square of the ratio of strides.
    node.CEM_TO_LEVELS = ["p2", "p3", "p4"]
    # Number of channels of a high level after compression, and after upsampling to a low level's
    # size.
    node.CEM_COMPRESSED_CHANNELS = 64
    node.CEM_LOCAL_CHANNELS = 16

    # FBSM: amplify each of these levels where its mask, predicted from its own features, is high.
    node.FBSM_ENABLED = False
    node.FBSM_LEVELS = ["p2_prime", "p2", "p3", "p4"]
    # Weight of the mask loss (masks against ground-truth boxes); 0.0: masks are learned from
    # detection alone. Values above 0.0 require MODEL.META_ARCHITECTURE EFPNRCNN or EFPNRetinaNet,
    # which also log the masks' contrast, whatever the weight.
    node.FBSM_MASK_LOSS_WEIGHT = 0.0

    # DCLoss: weight the losses of objects by size, so that no size dominates the gradients. Applies
    # to the RPN, box heads and RetinaNet; requires EFPNRPN and EFPNROIHeads (or
    # EFPNCascadeROIHeads), or EFPNRetinaNet.
    node.DCLOSS_ENABLED = False
    # Exponent of a weight, at least 0. 0.0: all weights are 1, which is bitwise the plain loss;
    # 1.0: objects of all sizes get the same mean gradient, within the limits below.
    node.DCLOSS_ALPHA = 0.5
    # Momentum of the moving average of each size's gradient, in [0.0, 1.0); with
    # TRAINING.ACCUMULATE_GRADIENTS each part of a batch updates it.
    node.DCLOSS_MOMENTUM = 0.9
    # Edges of the half-open size bins in pixels of the network's input, size = sqrt(w * h) of the
    # object: below 8, [8, 16), [16, 32), 32 and above.
    node.DCLOSS_SIZE_BINS = [8, 16, 32]
    # Limits of a weight, before the weights of a batch are normalized to a mean of 1.
    node.DCLOSS_MIN_WEIGHT = 0.5
    node.DCLOSS_MAX_WEIGHT = 2.0
    return node


def _distill_node() -> CN:
    node = CN()
    # Training stage [paper IV-A3], a row of efpn_d2/modeling/stage_table.py: "base" (the stock
    # detector), "distill", "head", "joint", "finetune" or "add_on"; "": everything at once, by the
    # detector's own losses. All but "", "base" and "finetune" need MODEL.META_ARCHITECTURE
    # "DistillationRCNN", and "head" needs MODEL.ROI_HEADS.NAME "OHEMSmallROIHeads"; the commands
    # set both.
    node.STAGE = ""

    # For tools/run_stages.py: the stages in order, each as [stage, iterations, learning rate].
    # SOLVER.STEPS and WARMUP_ITERS refer to SOLVER.MAX_ITER iterations and are scaled to each
    # stage.
    node.SCHEDULE = []

    # Eq. 5: the features that are distilled from the teacher's; ["p2_prime"] is a row of the
    # paper's Table IV.
    node.LEVELS = ["p3_prime", "p2_prime"]
    # lambda of Eq. 8; 0: only the global loss.
    node.POSITIVE_WEIGHT = 1.0
    # Weight of Eq. 5 relative to the detector's losses in "joint".
    node.LOSS_WEIGHT = 1.0
    # How the two views are made: "downsample" (images are loaded at twice INPUT.MIN_SIZE_TRAIN for
    # the teacher, and the student sees their 2x2 means) or "upsample" (images are loaded at the
    # student's scale and interpolated for the teacher, for files without more detail).
    node.VIEW = "downsample"
    # Checkpoint of a separate teacher with the same architecture; "": the network itself.
    node.TEACHER_WEIGHTS = ""
    # Range of brightness, contrast and saturation jitter: factors from 1 - x to 1 + x; 0: disabled.
    node.COLOR_JITTER = 0.0

    # Stage "head": number of boxes per batch to train on, hardest first, and the fraction of
    # foreground.
    node.OHEM_BATCH = 128
    node.OHEM_POSITIVE_FRACTION = 0.25
    # Stage "head": also train the extension, as in the authors' code.
    node.UNFREEZE_EXTENSION = False
    return node


def _training_node() -> CN:
    node = CN()
    # Number of parts of a batch that pass through the network one after another, to save memory.
    # SOLVER.IMS_PER_BATCH is still the number of images per optimizer step, and an iteration is one
    # such step, so learning rate and schedule are unchanged. Must divide the batch of each process.
    node.ACCUMULATE_GRADIENTS = 1
    # Precision of SOLVER.AMP.ENABLED: "float16" (with loss scaling) or "bfloat16" (without).
    node.AMP_PRECISION = "float16"
    return node


def _coco_data_node() -> CN:
    node = CN()
    # Datasets to register before use: a list of [name, path of the COCO JSON, image folder].
    # Relative paths are resolved in $DETECTRON2_DATASETS, then in the working directory.
    node.REGISTER = []
    return node


def _data_node() -> CN:
    """Return the node of training-time sampling and augmentation, all disabled by default."""
    node = CN()
    # Repeat images so that each class has about this many objects per epoch [paper IV-A3: 1000], up
    # to a maximum number of repeats. A rare class needs instances / its number of objects repeats.
    node.BALANCE_CLASSES = False
    node.BALANCE_INSTANCES = 1000
    node.BALANCE_MAX_REPEAT = 20.0

    # Range of brightness, contrast and saturation jitter: factors from 1 - x to 1 + x; 0.0:
    # disabled.
    node.COLOR_JITTER = 0.0
    # Multiply the input size, after INPUT.MIN_SIZE_TRAIN, by a factor from this range, e.g. [0.8,
    # 1.25]; []: disabled. With DISTILL.VIEW "downsample" the teacher's view is twice that size.
    node.SCALE_JITTER = []

    # Paste copies of small objects elsewhere in their image: the probability per image (0.0:
    # disabled) and the maximum number of copies.
    node.COPY_PASTE_PROBABILITY = 0.0
    node.COPY_PASTE_MAX_COPIES = 4
    # Only objects with sqrt(w * h) below this size, in pixels of the image file, are copied.
    node.COPY_PASTE_MAX_SIZE = 32.0
    # Maximum fraction of another object's box that a copy may cover, in [0.0, 1.0).
    node.COPY_PASTE_MAX_COVER = 0.0
    return node


def _evaluation_node() -> CN:
    node = CN()
    # Edges of the half-open object-size bins in pixels of the annotation, size = sqrt(area): [0, 8,
    # 16, 32] reports AP for [0, 8), [8, 16), [16, 32) and [32, inf). Empty: only COCO's small /
    # medium / large.
    node.SIZE_BINS = []
    # Evaluation protocol: "coco", "aitod", "sodad", "tinyperson", "tt100k" or "visdrone"; see
    # docs/evaluation.md. "": from the dataset's metadata; for COCO, AP is then computed at
    # TEST.DETECTIONS_PER_IMAGE instead of 100 detections.
    node.PROTOCOL = ""
    # Override the values of a protocol of the COCO family: ascending IoU thresholds over which AP
    # is averaged, and ascending limits of detections per image and class, the last of which AP
    # uses. Empty: the protocol's own.
    node.IOU_THRESHOLDS = []
    node.MAX_DETS = []
    # Backend of COCO's metrics: "hotcoco", "faster-coco-eval", "pycocotools", or "auto": the first
    # one installed. They agree up to rounding.
    node.BACKEND = "auto"
    # For "tt100k": names of the evaluated classes (empty: from the dataset's metadata, else the 45
    # of its release), and score thresholds in [0, 1] to report besides the best one.
    node.CLASSES = []
    node.SCORE_THRESHOLDS = [0.4]
    # Write an HTML report after every evaluation of a dataset in COCO format to
    # report_<dataset>/index.html beside the predictions; see tools/report.py.
    node.REPORT = False
    return node


def _multi_scale_test_node() -> CN:
    """Return the node of multi-scale testing, an addition to Detectron2's TEST.AUG."""
    node = CN()
    # Size that routes boxes to P'2 at each scale: "input" (in pixels of the network's input, as in
    # training: an object that is small at 1x is pooled from P2 at 2x) or "object" (SMALL_BOX_SIZE
    # is scaled with the image relative to INPUT.MIN_SIZE_TEST: the same objects are pooled from P'2
    # at every scale).
    node.ROUTE_BY = "input"
    return node
