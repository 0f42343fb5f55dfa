"""Makes movies of nuclei that move, divide, touch, leave and appear, by rule, with known truth.

Nothing of the linker is used here. A movie is made in two steps: where each cell is in each frame (`simulate`), and
what a frame looks like, its true labels and its image, drawn when asked for (`Movie.labels`, `Movie.image`). Sizes
are in pixels, times in frames.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint32]
Image = npt.NDArray[np.uint16]

#: Share of its mother's area that a daughter has on average; nuclei condense when they divide.
DAUGHTER_AREA = 0.52
#: Fewer pixels than this are no label, as at the border of the image.
LEAST_PX = 12


@dataclass(frozen=True)
class Scene:
    """What happens in a movie.

    Attributes:
        cells: how many there are in the first frame.
        frames: length of the movie.
        side_px: of its square frames.
        diameter_px: of a cell that has just been born, on average.
        step: standard deviation of a cell's movement along an axis from frame to frame, in diameters.
        persistence: share of a step that continues in the next frame, 0 for a random walk.
        cycle: frames from birth to division, on average.
        arrivals: cells that come in over the border in each frame, on average.
        drift_px: standard deviation of the stage's movement along an axis from frame to frame.
        noise: standard deviation of the camera's noise, as a share of a cell's brightness.
        seed: of all chance.
    """

    cells: int = 60
    frames: int = 40
    side_px: int = 512
    diameter_px: float = 20.0
    step: float = 0.15
    persistence: float = 0.4
    cycle: float = 40.0
    arrivals: float = 0.3
    drift_px: float = 0.0
    noise: float = 0.08
    seed: int = 1


@dataclass(frozen=True)
class Cell:
    """A cell in one frame: an ellipse with one bump.

    Attributes:
        label: the same in all frames.
        y: row of its centre.
        x: column of its centre.
        radius: half of its diameter, were it a circle.
        stretch: length by width.
        angle: of its long axis, radians from the row axis.
        brightness: relative to the others'.
    """

    label: int
    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    brightness: float


@dataclass
class _Living:
    """A cell while it is simulated, with what it will do next."""

    cell: Cell
    velocity: Floats
    age: float
    cycle: float
    birth_radius: float


@dataclass(frozen=True)
class Movie:
    """A movie and its truth.

    Attributes:
        scene: what it was made by.
        cells: those of each frame.
        parents: label of the mother by label of the daughter.
        offsets: (frames, 2) where the stage stood, rows and columns.
    """

    scene: Scene
    cells: list[list[Cell]]
    parents: dict[int, int]
    offsets: Floats
    _drawn: dict[int, Labels] = field(default_factory=dict, repr=False)

    def labels(self, frame: int) -> Labels:
        """True labels of a frame, (Y, X); where two cells would overlap, they touch along a line."""
        side = self.scene.side_px
        labels, nearest = np.zeros((side, side), np.uint32), np.full((side, side), 1.0)
        for cell in self.cells[frame]:
            box, depth = _depth(cell, self.offsets[frame], side)
            inside = depth < nearest[box]
            labels[box][inside] = cell.label
            nearest[box][inside] = depth[inside]
        small = np.bincount(labels.ravel()) < LEAST_PX
        return np.where(small[labels], 0, labels).astype(np.uint32)

    def image(self, frame: int) -> Image:
        """What the camera sees of a frame, (Y, X): blurred, over an uneven background, with noise."""
        from scipy.ndimage import gaussian_filter

        dice = np.random.default_rng([self.scene.seed, frame])
        side = self.scene.side_px
        light = np.zeros((side, side))
        for cell in self.cells[frame]:
            box, depth = _depth(cell, self.offsets[frame], side)
            light[box] = np.maximum(light[box], cell.brightness * np.clip(1.3 - depth, 0, 0.8))
        light *= 1 + 0.12 * gaussian_filter(dice.normal(size=light.shape), 2) * 7
        rows = np.linspace(0, 1, side)
        light = gaussian_filter(light, 1.0) + 0.1 + 0.05 * rows[:, np.newaxis]
        photons = dice.poisson(light * 400) / 400 + dice.normal(scale=self.scene.noise, size=light.shape)
        image: Image = np.clip(photons * 4000 + 200, 0, 65535).astype(np.uint16)
        return image


def simulate(scene: Scene) -> Movie:
    """Move the cells of a scene through its frames."""
    dice = np.random.default_rng(scene.seed)
    labels = iter(range(1, 1 << 31))
    living = [_settler(scene, next(labels), position, dice) for position in _places(scene, dice)]
    frames, parents = [], {}
    for _ in range(scene.frames):
        frames.append([each.cell for each in living])
        after: list[_Living] = []
        for each in living:
            daughters = _grow(each, scene, dice)
            for daughter in daughters:
                if len(daughters) == 2:
                    label = next(labels)
                    parents[label] = each.cell.label
                    daughter.cell = replace(daughter.cell, label=label)
                after.append(daughter)
        after += [_arrival(scene, next(labels), dice) for _ in range(dice.poisson(scene.arrivals))]
        _push_apart(after)
        living = [each for each in after if _is_inside(each.cell, scene.side_px)]
    steps = dice.normal(scale=scene.drift_px, size=(scene.frames, 2)) if scene.drift_px else np.zeros((scene.frames, 2))
    return Movie(scene, frames, parents, np.cumsum(steps, axis=0) - steps[0])


def shuffled(labels: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """The same regions with labels that are unrelated from frame to frame, as a segmentation gives them."""
    order = np.random.default_rng(seed).permutation(int(labels.max())) + 1
    mixed: npt.NDArray[Any] = np.concatenate([[0], order]).astype(labels.dtype)[labels]
    return mixed


def _places(scene: Scene, dice: np.random.Generator) -> Floats:
    """Places for the first cells, mostly apart from each other."""
    places: list[Floats] = []
    for tries in range(scene.cells * 50):
        place = dice.uniform(0, scene.side_px, 2)
        apart = scene.diameter_px * (1.25 if tries < scene.cells * 25 else 0.9)
        if all(np.hypot(*(place - other)) > apart for other in places):
            places.append(place)
        if len(places) == scene.cells:
            break
    return np.array(places).reshape(-1, 2)


def _settler(scene: Scene, label: int, place: Floats, dice: np.random.Generator) -> _Living:
    radius = scene.diameter_px / 2 * dice.lognormal(0, 0.1)
    cycle = scene.cycle * dice.lognormal(0, 0.2)
    age = dice.uniform(0, 1) * cycle
    cell = Cell(label, place[0], place[1], radius, dice.uniform(1, 1.5), dice.uniform(0, np.pi), dice.lognormal(0, 0.3))
    return _Living(replace(cell, radius=radius * _growth(age / cycle)), np.zeros(2), age, cycle, radius)


def _arrival(scene: Scene, label: int, dice: np.random.Generator) -> _Living:
    """A cell that comes in over one of the four borders."""
    along, side = dice.uniform(0, scene.side_px), scene.side_px - 1.0
    place, inward = [
        ((0.0, along), (1, 0)),
        ((side, along), (-1, 0)),
        ((along, 0.0), (0, 1)),
        ((along, side), (0, -1)),
    ][dice.integers(4)]
    new = _settler(scene, label, np.array(place), dice)
    new.velocity = np.array(inward) * scene.step * scene.diameter_px
    return new


def _growth(share: float) -> float:
    """Radius relative to that at birth: the area nearly doubles in a cycle."""
    return float(np.sqrt(1 + 0.85 * min(share, 1)))


def _grow(each: _Living, scene: Scene, dice: np.random.Generator) -> list[_Living]:
    """The cell a frame later, or its two daughters."""
    if each.age >= each.cycle:
        return _divide(each, scene, dice)
    step = scene.step * scene.diameter_px
    kept = scene.persistence
    velocity = kept * each.velocity + np.sqrt(1 - kept**2) * dice.normal(scale=step, size=2)
    cell = replace(
        each.cell,
        y=each.cell.y + velocity[0],
        x=each.cell.x + velocity[1],
        radius=each.birth_radius * _growth(each.age / each.cycle) * dice.lognormal(0, 0.02),
        stretch=float(np.clip(each.cell.stretch + dice.normal(scale=0.04), 1, 1.8)),
        angle=each.cell.angle + dice.normal(scale=0.12),
    )
    return [_Living(cell, velocity, each.age + 1, each.cycle, each.birth_radius)]


def _divide(each: _Living, scene: Scene, dice: np.random.Generator) -> list[_Living]:
    share = float(np.clip(dice.normal(0.5, 0.04), 0.4, 0.6))
    axis = np.array([np.cos(each.cell.angle), np.sin(each.cell.angle)])
    daughters = []
    for part, way in ((share, 1), (1 - share, -1)):
        radius = each.cell.radius * np.sqrt(2 * DAUGHTER_AREA * part)
        y, x = np.array([each.cell.y, each.cell.x]) + way * axis * each.cell.radius * dice.uniform(0.75, 1.0)
        cell = replace(each.cell, y=y, x=x, radius=radius, stretch=1.2, angle=each.cell.angle + np.pi / 2)
        push = way * axis * scene.diameter_px * 0.1
        daughters.append(_Living(cell, push, 0.0, scene.cycle * dice.lognormal(0, 0.2), radius))
    return daughters


def _push_apart(living: list[_Living]) -> None:
    """Let cells that overlap give way to each other; some touch afterwards."""
    from scipy.spatial import cKDTree

    if len(living) < 2:
        return
    places = np.array([[each.cell.y, each.cell.x] for each in living])
    radii = np.array([each.cell.radius for each in living])
    for _ in range(4):
        pairs = cKDTree(places).query_pairs(2 * radii.max(), output_type="ndarray")
        way = places[pairs[:, 0]] - places[pairs[:, 1]]
        distance = np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-6)
        push = np.maximum(radii[pairs].sum(axis=1) * 0.95 - distance, 0) / distance / 2
        moves = push[:, np.newaxis] * way
        np.add.at(places, pairs[:, 0], moves)
        np.add.at(places, pairs[:, 1], -moves)
    for each, (y, x) in zip(living, places, strict=True):
        each.cell = replace(each.cell, y=y, x=x)


def _is_inside(cell: Cell, side: int) -> bool:
    return -cell.radius < cell.y < side + cell.radius and -cell.radius < cell.x < side + cell.radius


def _depth(cell: Cell, offset: Floats, side: int) -> tuple[tuple[slice, slice], Floats]:
    """The box around a cell and, for each pixel in it, the distance from the centre: 1 on the cell's outline."""
    y, x = cell.y + offset[0], cell.x + offset[1]
    reach = cell.radius * 1.6
    top, left = max(int(y - reach), 0), max(int(x - reach), 0)
    bottom, right = max(min(int(y + reach) + 2, side), top), max(min(int(x + reach) + 2, side), left)
    rows, columns = np.mgrid[top:bottom, left:right] - np.array([y, x]).reshape(2, 1, 1)
    along = rows * np.cos(cell.angle) + columns * np.sin(cell.angle)
    across = columns * np.cos(cell.angle) - rows * np.sin(cell.angle)
    wide = np.hypot(along / np.sqrt(cell.stretch), across * np.sqrt(cell.stretch))
    bump = 1 + 0.06 * np.cos(3 * np.arctan2(across, along) + cell.label)
    return (slice(top, bottom), slice(left, right)), wide / (cell.radius * bump)


#: A few large, bright cells that divide now and then; the shipped model needs some 0.1 s for a frame.
SMALL = Scene(cells=8, frames=8, side_px=160, diameter_px=24.0, cycle=10.0, arrivals=0.1, step=0.1, noise=0.05, seed=5)


def small_movie() -> Movie:
    """A movie for end-to-end tests."""
    return simulate(SMALL)


def write_tiff(movie: Movie, path: Path) -> None:
    """Write the images of a movie as one TIFF (T, Y, X)."""
    frames = np.stack([movie.image(number) for number in range(movie.scene.frames)])
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames, photometric="minisblack", metadata={"axes": "TYX"})


def write_zip(movie: Movie, path: Path) -> None:
    """Write the images of a movie as a zip of one TIFF a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(movie.scene.frames):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, movie.image(number))
            archive.writestr(f"frames/t{number}.tif", buffer.getvalue())


def true_labels(movie: Movie) -> list[Labels]:
    """The true label images, frame by frame."""
    return [movie.labels(number) for number in range(movie.scene.frames)]
