"""Models of SAT's shape with few weights, stand-ins for them, and the scans they are shown."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from fakes import seeded, tiny_segmenter, write_model

from textseg import Segmenter
from textseg.network.backbones import BackboneConfig
from textseg.network.model import Decoded, NetworkConfig
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.weights import Domain, ModelManifest

WINDOW = (16, 12, 8)
SPACING = (1.0, 1.0, 3.0)


def domain(name, modality, *concepts, **changes):
    return Domain(
        name=name,
        spacing_mm=SPACING,
        window=WINDOW,
        modalities=(modality,),
        concepts=concepts,
        **changes,
    )


DOMAINS = (
    domain("body-ct", "ct", "liver", "spleen", "kidney.left", "kidney.right", "femur"),
    domain("body-mr", "mr", "liver", "spleen", "femur"),
    domain("spine-mr", "mr", "vertebra.l5", axes="ASR"),
)
WORDS = ("left", "right", "kidney", "liver", "spleen", "femur", "bone", "vertebra")
PIECES = ("<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]", *WORDS)

BOX = (slice(3, 8), slice(2, 7), slice(1, 4))  # more than the 0.5 % of a scan that MR clips


def encoder():
    """SAT's text encoder, tiny, that knows a few words apart."""
    config = SatTextEncoderConfig(
        vocabulary=len(PIECES), features=24, layers=1, heads=3, hidden=12, positions=40
    )
    return seeded(lambda: SatTextEncoder(config, PIECES)).eval()


def network_config(**changes):
    """A network with every switch as SAT has it."""
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), norm="instance")
    settings = {
        "backbone": backbone,
        "light_full_resolution": False,
        "full_channels": 6,
        "mask_levels": 2,
        "query_features": 24,
        "embedding": 24,
        "layers": 2,
        "heads": 3,
        "hidden": 24,
        "text_shortcut": False,
        "token_hidden": 12,
        "mask_hidden": (10, 14),
        "gelu_ends": True,
        "query_projection": False,
        "presence_head": False,
        "whiten_queries": False,
        "norm": "instance",
    }
    return NetworkConfig(**{**settings, **changes})


def network():
    """That network with random weights, whose masks are neither empty nor everything."""
    made = tiny_segmenter(network_config())
    with torch.no_grad():
        # small numbers leave a GELU as about half of themselves, and every logit near zero
        made.mask_heads[0][2].weight *= 40
    return made


def write_sat(path):
    """A model folder of that network; its manifest."""
    return write_model(
        path,
        network=network(),
        encoder=encoder(),
        domains=DOMAINS,
        preparation="sat",
        source={"nano.pth": "12" * 32},
    )


def load(folder, **options):
    return Segmenter.from_pretrained(folder, device="cpu", **{"precision": "float32", **options})


class StandIn(torch.nn.Module):
    """Answers every prompt by one rule, from a window ``B 1 X Y Z`` to logits of that shape."""

    granularity = 4

    def __init__(self, rule):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.rule = rule
        self.asked = []
        self.seen = []

    def encode(self, volume):
        self.seen.append(volume.clone())
        return self.rule(volume)

    def decode(self, features, queries):
        self.asked.append(queries.clone())
        logits = features.expand(-1, queries.shape[1], -1, -1, -1)
        return Decoded.of_logits(logits, logits.flatten(2).amax(-1))


def bright(window):
    """What is brighter than the mean of the scan."""
    return 60 * window


def everywhere(window):
    return torch.full_like(window, 9.0)


def doubtful(window):
    return torch.full_like(window, -0.1)


def stand_in(rule, domains=DOMAINS, **options):
    """A segmenter of that rule, prepared and asked as SAT is."""
    manifest = ModelManifest(
        name="stand-in",
        version="1",
        licence="none",
        sha256="0" * 64,
        network={},
        text_encoder={},
        domains=domains,
        preparation="sat",
    )
    options = {"precision": "float32", **options}
    return Segmenter(StandIn(rule), encoder(), manifest, device="cpu", **options)


def box_of(shape, box):
    mask = np.zeros(shape, dtype=bool)
    mask[box] = True
    return mask


def stored(values, spacing, *, orientation="RAS", turn=None):
    """Values along R, A and S as a file with other axes holds them, and the affine of the file."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = (-31, 17, 5)
    image = nib.Nifti1Image(values, affine)
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    turned = image.as_reoriented(ornt)
    return np.asanyarray(turned.dataobj), turned.affine


def tilted(degrees):
    """A rotation by these angles about X, Y and Z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        step = np.eye(3)
        first, second = ((1, 2), (0, 2), (0, 1))[axis]
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    return matrix


def phantom(shape, box, modality):
    """Soft tissue in air, with something bright in it; values along R, A and S."""
    air, tissue = (-1000, 40) if modality == "ct" else (0, 40)
    values = np.full(shape, air, dtype=np.float32)
    values[1:-1, 1:-1, 1:-1] = tissue
    values[box] = 900
    return values
