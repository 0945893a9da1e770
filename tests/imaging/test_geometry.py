"""Voxels keep their place: every axis order, four formats of placement, three file formats."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from textseg.imaging import Geometry, Grid, Source, Volume, plan_grid, read_volume, to_grid

SHAPE = (14, 11, 9)
LANDMARKS = {
    # intensity: corner boxes of different sizes, so that no flip or swap maps one on another
    100: (slice(1, 6), slice(2, 6), slice(1, 5)),  # left, posterior, inferior
    200: (slice(9, 13), slice(5, 10), slice(1, 5)),  # right, anterior, inferior
    300: (slice(5, 9), slice(1, 5), slice(4, 8)),  # middle, posterior, superior
}
AXIS_ORDERS = [
    np.array(list(zip(order, signs, strict=True)), dtype=float)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def canonical_phantom() -> np.ndarray:
    array = np.random.default_rng(3).integers(0, 20, SHAPE).astype(np.int16)
    for value, box in LANDMARKS.items():
        array[box] = value
    return array


def placement(kind: str) -> np.ndarray:
    """Canonical (nearly RAS) affine of each kind of scan."""
    steps = {"thick": (0.7, 0.7, 5.0), "oblique": (0.9, 1.1, 2.0)}.get(kind, (1.25, 1.25, 1.25))
    matrix = np.diag([*steps, 1.0])
    if kind == "oblique":
        axis = np.array([1.0, -2.0, 3.0]) / np.sqrt(14.0)
        matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(17.0) * axis).as_matrix() @ matrix[:3, :3]
    if kind.startswith("shear"):
        matrix[0, 1] = float(kind.split()[1]) * 1.25
        matrix[2, 1] = -float(kind.split()[1]) * 0.5
    matrix[:3, 3] = (-31.5, 12.25, 407.0)
    return matrix


def reordered(order: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The phantom with its axes permuted and flipped, still at the same place in the world."""
    array = nib.orientations.apply_orientation(canonical_phantom(), order)
    return array, placement(kind) @ nib.orientations.inv_ornt_aff(order, SHAPE)


def volume_of(array: np.ndarray, affine: np.ndarray) -> Volume:
    data = np.array(array, dtype=np.float32)
    return Volume(data[None], Geometry(data.shape, affine), "mr", Source(None, "array"))


def test_there_are_48_axis_orders():
    assert len({order.tobytes() for order in AXIS_ORDERS}) == 48


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("kind", ["isotropic", "thick", "oblique", "shear 5e-4"])
def test_landmarks_come_back_to_their_own_voxels(kind, suffix, write_scan, tmp_path):
    canonical = canonical_phantom()
    grid = Grid(Geometry(SHAPE, placement(kind)).spacing_mm)
    for number, order in enumerate(AXIS_ORDERS):
        array, affine = reordered(order, kind)
        volume = read_volume(write_scan(tmp_path / f"{number}.{suffix}", array, affine))
        on_grid, transform = to_grid(volume, grid)

        assert np.array_equal(volume.data[0], array)
        assert np.array_equal(on_grid[0].numpy(), canonical)
        for value in LANDMARKS:
            restored = transform.restore((on_grid[0] == value).to(torch.uint8) * 255)
            assert np.array_equal(restored, array == value)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("kind", ["oblique", "shear 5e-2"])
def test_landmarks_survive_a_different_working_spacing(kind, suffix, write_scan, tmp_path):
    for number, order in enumerate(AXIS_ORDERS):
        array, affine = reordered(order, kind)
        path = write_scan(tmp_path / f"{number}.{suffix}", array, affine)
        volume = read_volume(path, modality="mr")
        on_grid, transform = to_grid(volume, Grid((0.8, 0.7, 1.0)))

        for value in LANDMARKS:
            indicator = volume_of(array == value, volume.geometry.affine)
            seen, _ = to_grid(indicator, Grid((0.8, 0.7, 1.0)))
            restored = transform.restore(seen[0])
            centre = ndimage.center_of_mass(restored)
            assert np.allclose(centre, ndimage.center_of_mass(array == value), atol=0.25)
            overlap = 2 * (restored & (array == value)).sum()
            # straightening a sheared box rounds its corners and edges off
            assert overlap / (restored.sum() + (array == value).sum()) > 0.85
        assert np.isfinite(on_grid.numpy()).all()


@pytest.mark.parametrize("kind", ["thick", "oblique", "shear 5e-4", "shear 5e-2"])
def test_left_stays_left(kind):
    for order in AXIS_ORDERS:
        array, affine = reordered(order, kind)
        volume = volume_of(array == 100, affine)
        on_grid, transform = to_grid(volume, Grid((1.0, 1.0, 2.0)))
        across = np.arange(on_grid.shape[1])
        weights = on_grid[0].sum(dim=(1, 2)).numpy()
        middle = (on_grid.shape[1] - 1) / 2

        assert (across * weights).sum() / weights.sum() < middle
        assert transform.target.orientation == "RAS"
        world = volume.geometry.to_world(np.argwhere(transform.restore(on_grid[0])))
        centre = volume.geometry.to_world((np.array([array.shape]) - 1) / 2)
        assert world[:, 0].mean() < centre[0, 0]


def random_affine(draw_seed: int, *, shear: float) -> np.ndarray:
    generator = np.random.default_rng(draw_seed)
    matrix = np.eye(4)
    rotation = Rotation.random(random_state=draw_seed).as_matrix()
    skew = np.eye(3) + shear * np.triu(generator.uniform(-1, 1, (3, 3)), k=1)
    mirror = np.diag([generator.choice([-1.0, 1.0]), 1.0, 1.0])
    matrix[:3, :3] = rotation @ skew @ mirror @ np.diag(generator.uniform(0.6, 4.0, 3))
    matrix[:3, 3] = generator.uniform(-200, 200, 3)
    return matrix


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    sheared=st.booleans(),
    spacing=st.tuples(*[st.floats(0.7, 5.0)] * 3),
    shape=st.tuples(st.integers(5, 17), st.integers(6, 13), st.integers(4, 15)),
)
def test_a_plane_in_the_world_is_where_it_was(seed, sheared, spacing, shape):
    source = Geometry(shape, random_affine(seed, shear=0.2 if sheared else 0.0))
    transform = plan_grid(source, Grid(spacing))
    normal = np.random.default_rng(seed).normal(size=3)
    normal /= np.linalg.norm(normal)
    centre = source.to_world((np.array([shape]) - 1) / 2)[0]

    def distance(geometry: Geometry) -> np.ndarray:
        points = geometry.to_world(np.argwhere(np.ones(geometry.shape)))
        return ((points - centre) @ normal).reshape(geometry.shape)

    on_target = torch.from_numpy(distance(transform.target)).float()
    mask = transform.restore(0.5 + on_target / 1000.0)
    # scan voxels beyond the outermost working voxel read the nearest one
    decided = np.abs(distance(source)) > np.sqrt(3.0) * max(spacing) / 2
    assert np.array_equal(mask[decided], distance(source)[decided] > 0)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), spacing=st.tuples(*[st.floats(0.4, 6.0)] * 3))
def test_the_working_grid_keeps_centre_and_field_of_view(seed, spacing):
    source = Geometry((9, 16, 12), random_affine(seed, shear=0.0))
    target = plan_grid(source, Grid(spacing)).target
    middle = [
        geometry.to_world((np.array([geometry.shape]) - 1) / 2) for geometry in (source, target)
    ]

    assert np.allclose(*middle, atol=1e-6)
    assert np.allclose(target.spacing_mm, spacing)
    permutation = plan_grid(source, Grid(spacing)).permutation
    extents = [source.shape[axis] * source.spacing_mm[axis] for axis in permutation]
    for extent, num, step in zip(extents, target.shape, spacing, strict=True):
        assert num == 1 or abs(num * step - extent) <= step / 2 + 1e-6


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), sheared=st.booleans())
def test_world_and_voxel_coordinates_are_inverse(seed, sheared):
    geometry = Geometry((3, 4, 5), random_affine(seed, shear=0.3 if sheared else 0.0))
    points = np.random.default_rng(seed).uniform(-5, 9, (7, 3))
    assert np.allclose(geometry.to_voxel(geometry.to_world(points)), points)


def test_a_geometry_cannot_be_changed():
    affine = np.eye(4)
    geometry = Geometry((2, 3, 4), affine)
    affine[0, 0] = 7.0
    assert geometry.affine[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 2.0


def test_geometries_match_up_to_a_tolerance_at_the_corners():
    first = Geometry((5, 7, 3), np.diag([1.0, 2.0, 3.0, 1.0]))
    nudged = np.array(first.affine)
    nudged[0, 3] += 5e-3
    assert first.matches(Geometry((5, 7, 3), nudged))
    assert not first.matches(Geometry((5, 7, 3), nudged), tolerance_mm=1e-3)
    assert not first.matches(Geometry((5, 3, 7), first.affine))
