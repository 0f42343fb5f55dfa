"""Scores how well found tracks agree with the true ones.

Measures of the field, on graphs of cells (a node is a label in a frame, an edge leads to the same cell or a daughter in
a later frame): F1 of edges, F1 of divisions, and TRA of the Cell Tracking Challenge (Matula et al. 2015, PLoS ONE
10:e0144959). `benchmarks.peers.traccuracy` computes the same with a known library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]
Node = tuple[int, int]
Edge = tuple[Node, Node]

#: Costs of correcting a graph, by Matula et al.: split, add, remove a node; remove, add an edge, change its kind.
WEIGHTS = {"split": 5.0, "add_node": 10.0, "remove_node": 1.0, "remove_edge": 1.0, "add_edge": 1.5, "change_edge": 1.0}


@dataclass
class Graph:
    """The cells of a movie and where they go.

    Attributes:
        nodes: frame and label of each cell in each frame.
        edges: to the same cell; its next frame may be a later one than the following.
        births: edges from a mother to her daughters.
    """

    nodes: set[Node] = field(default_factory=set)
    edges: set[Edge] = field(default_factory=set)
    births: set[Edge] = field(default_factory=set)

    @property
    def divisions(self) -> set[tuple[Node, ...]]:
        """A mother's last node and her daughters' first ones, for each division."""
        families: dict[Node, list[Node]] = {}
        for mother, daughter in self.births:
            families.setdefault(mother, []).append(daughter)
        return {(mother, *sorted(daughters)) for mother, daughters in families.items() if len(daughters) == 2}


def graph_of(frames: Iterable[Labels], parents: Mapping[int, int]) -> Graph:
    """The graph of label images in which a cell keeps its label.

    Args:
        frames: (Y, X) labels, frame by frame.
        parents: label of the mother by label of the daughter.
    """
    graph = Graph()
    first: dict[int, Node] = {}
    last: dict[int, Node] = {}
    for number, labels in enumerate(frames):
        for label in np.unique(labels[labels > 0]).tolist():
            node = (number, label)
            graph.nodes.add(node)
            if label in last:
                graph.edges.add((last[label], node))
            first.setdefault(label, node)
            last[label] = node
    graph.births = {
        (last[mother], first[daughter])
        for daughter, mother in parents.items()
        if daughter in first and mother in last and last[mother][0] < first[daughter][0]
    }
    return graph


@dataclass(frozen=True)
class Scores:
    """Agreement of two graphs, 1 at best.

    Attributes:
        link_f1: of edges, those from mothers to daughters too.
        division_f1: of divisions; one counts where the mother's last frame and both daughters' first ones agree.
        tra: the challenge's measure.
    """

    link_f1: float
    division_f1: float
    tra: float


def score(
    truth: Sequence[Labels], parents: Mapping[int, int], found: Sequence[Labels], tracks: Sequence[Any]
) -> Scores:
    """Compare found tracks with true ones.

    Args:
        truth: (Y, X) true labels, frame by frame.
        parents: label of the true mother by label of the daughter.
        found: (Y, X) labels of the found tracks.
        tracks: found ones, with ``label`` and ``parent``.
    """
    true, seen = graph_of(truth, parents), graph_of(found, {t.label: t.parent for t in tracks if t.parent})
    owner = match(truth, found)
    shared = Counter(owner.values())
    back = {node: label for label, node in owner.items() if shared[node] == 1}
    edges, births = (_mapped(each, back) for each in (seen.edges, seen.births))
    divisions = {tuple(back.get(node, node) for node in family) for family in seen.divisions}
    divisions = {(mother, *sorted(daughters)) for mother, *daughters in divisions}
    return Scores(
        link_f1=f1(true.edges | true.births, edges | births | _unknown(seen, back)),
        division_f1=f1(true.divisions, divisions),
        tra=_tra(true, seen, shared, edges, births),
    )


def match(truth: Sequence[Labels], found: Sequence[Labels]) -> dict[Node, Node]:
    """The found node that covers more than half of each true one, where there is one (the challenge's rule)."""
    owners: dict[Node, Node] = {}
    for number, (true, seen) in enumerate(zip(truth, found, strict=True)):
        width = int(seen.max()) + 1
        both = np.bincount((true.astype(np.int64) * width + seen).ravel(), minlength=(int(true.max()) + 1) * width)
        both = both.reshape(-1, width)
        for label in np.flatnonzero(2 * both[:, 1:].max(axis=1, initial=0) > both.sum(axis=1)):
            if label:
                owners[number, int(label)] = number, int(both[label, 1:].argmax()) + 1
    return owners


def f1(true: set[Any], found: set[Any]) -> float:
    """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing was found."""
    return 2 * len(true & found) / (len(true) + len(found)) if true or found else 1.0


def _mapped(edges: set[Edge], back: Mapping[Node, Node]) -> set[Edge]:
    """Found edges between nodes that have a true one of their own, as edges of those."""
    return {(back[start], back[end]) for start, end in edges if start in back and end in back}


def _unknown(seen: Graph, back: Mapping[Node, Node]) -> set[Any]:
    """Found edges at nodes that have no true one of their own: all of them are wrong."""
    return {("found", *edge) for edge in seen.edges | seen.births if not all(node in back for node in edge)}


def _tra(true: Graph, seen: Graph, shared: Mapping[Node, int], edges: set[Edge], births: set[Edge]) -> float:
    """One minus the cost of correcting the found graph, divided by the cost of making the true one from nothing."""
    found, wanted = edges | births, true.edges | true.births
    cost = (
        WEIGHTS["split"] * sum(count - 1 for count in shared.values())
        + WEIGHTS["add_node"] * (len(true.nodes) - sum(shared.values()))
        + WEIGHTS["remove_node"] * (len(seen.nodes) - len(shared))
        + WEIGHTS["remove_edge"] * len(found - wanted)
        + WEIGHTS["add_edge"] * len(wanted - found)
        + WEIGHTS["change_edge"] * len((edges & true.births) | (births & true.edges))
    )
    whole = WEIGHTS["add_node"] * len(true.nodes) + WEIGHTS["add_edge"] * len(wanted)
    return 1 - min(cost, whole) / whole if whole else 1.0
