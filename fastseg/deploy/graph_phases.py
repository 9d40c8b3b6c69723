"""In which order a network is computed by rows: passes over the image, and what is kept whole between them.

An operation over the whole map, such as global pooling, can only be done when its input is complete. So the network is
cut into phases: each first does its operations on whole maps, then goes once through the image from top to bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import networkx  # type: ignore[import-untyped]  # PyTorch's own dependency

from fastseg.deploy.graph_capture import Captured, Node
from fastseg.deploy.graph_rows import Rule
from fastseg.deploy.graph_rules import rule_for

FEW_ROWS = 8  # a grid of pooled values is computed at once


@dataclass
class Phase:
    """`whole` operations first, then `banded` ones by rows; `kept` of these are stored in full for later."""

    whole: list[Node] = field(default_factory=list)
    banded: list[Node] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)


@dataclass
class Phases:
    """`rules` are those of banded operations, `small_rules` of operations on few rows, which are done at once.

    `last_use` says in which phase, and there after which operation or, if None, at its end, a value that is kept in
    full or was made by an operation on whole maps is needed no more.
    """

    phases: list[Phase]
    rules: dict[Node, Rule]
    small_rules: dict[Node, Rule]
    image: Node
    output: Node
    last_use: dict[Node, tuple[int, Node | None]]


def cut_into_phases(captured: Captured) -> Phases:
    """Where every operation is done, so that little is kept between phases."""
    image, output = captured.nodes[0], captured.output
    rules, small_rules = _rules(captured)
    banded = {image, *rules}
    phase_of = _earliest(captured.nodes, rules, banded)
    done_before: set[Node] = set()
    for boundary in range(1, max(phase_of.values()) + 1):
        done_before = _cheapest_cut(captured, rules, phase_of, boundary, done_before)
        for node in banded - done_before:
            phase_of[node] = max(phase_of[node], boundary)
    phases = [Phase() for _ in range(max(phase_of.values()) + 1)]
    for node in captured.nodes:
        if node in rules:
            phases[phase_of[node]].banded.append(node)
        elif node is not image:
            phases[phase_of[node]].whole.append(node)
    for phase in phases:  # the image can be read again whenever it is needed
        if any(image in rules[node].by_rows for node in phase.banded):
            phase.banded.insert(0, image)
    if any(_reads_whole(user, image, rules) for user in image.users) and image not in phases[0].banded:
        phases[0].banded.insert(0, image)
    for node in (node for node in captured.nodes if node in banded):
        read_whole = any(_reads_whole(user, node, rules) for user in node.users)
        read_later = node is not image and any(phase_of[user] > phase_of[node] for user in node.users)
        if node is output or read_whole or read_later:
            phases[phase_of[node]].kept.append(node)
    return Phases(phases, rules, small_rules, image, output, _last_uses(captured, rules, phase_of))


def _rules(captured: Captured) -> tuple[dict[Node, Rule], dict[Node, Rule]]:
    """Rules of the operations that are computed by rows, and of those that could be and are a small matter."""
    rules: dict[Node, Rule] = {}
    small_rules: dict[Node, Rule] = {}
    whole: set[Node] = set()
    for node in captured.nodes[1:]:
        rule = rule_for(node)
        small = all(each in whole for each in node.inputs) and node.shape[2:3] <= (FEW_ROWS,)
        if rule is None or small:
            whole.add(node)
        if rule is not None:
            (small_rules if small else rules)[node] = rule
    return rules, small_rules


def _reads_whole(user: Node, node: Node, rules: dict[Node, Rule]) -> bool:
    return user not in rules or node not in rules[user].by_rows


def _earliest(nodes: list[Node], rules: dict[Node, Rule], banded: set[Node]) -> dict[Node, int]:
    """The first phase in which an operation could be done."""
    phase_of: dict[Node, int] = {}
    for node in nodes:
        waits = (phase_of[each] + (each in banded and _reads_whole(node, each, rules)) for each in node.inputs)
        phase_of[node] = max(waits, default=0)
    return phase_of


def _cheapest_cut(
    captured: Captured, rules: dict[Node, Rule], phase_of: dict[Node, int], boundary: int, before: set[Node]
) -> set[Node]:
    """Banded operations to do before phase `boundary`, such that the fewest bytes are kept for it and later ones.

    A minimum cut: what is done before is on the source's side, its value's bytes are the price when a user is not.
    """
    banded = {captured.nodes[0], *rules}
    graph = networkx.DiGraph()
    graph.add_nodes_from(("before", "later"))
    for node in captured.nodes:
        if node in banded:
            # the image is in the caller's memory
            free = node is captured.nodes[0] and not any(_reads_whole(user, node, rules) for user in node.users)
            graph.add_edge((node, "done"), (node, "all users done"), capacity=0 if free else node.bytes)
            if node in before or node is captured.nodes[0]:
                graph.add_edge("before", (node, "done"))
            if phase_of[node] >= boundary:
                graph.add_edge((node, "done"), "later")
        for each in (each for each in node.inputs if each in banded):
            if node in banded:
                graph.add_edge((each, "all users done"), (node, "done"))
                graph.add_edge((node, "done"), (each, "done"))
            elif phase_of[node] <= boundary:
                graph.add_edge("before", (each, "done"))
            else:
                graph.add_edge((each, "all users done"), "later")
    _, (early, _) = networkx.minimum_cut(graph, "before", "later")
    return {node for node in banded if (node, "done") in early}


def _last_uses(
    captured: Captured, rules: dict[Node, Rule], phase_of: dict[Node, int]
) -> dict[Node, tuple[int, Node | None]]:
    order = {node: index for index, node in enumerate(captured.nodes)}
    end = len(order)
    last: dict[Node, tuple[int, int]] = {}
    for node in reversed(captured.nodes):
        uses = [(phase_of[user], end if user in rules else order[user]) for user in node.users]
        # what a view shows stays alive with the view
        uses += [last[user] for user in node.users if user not in rules and is_view(user)]
        last[node] = max(uses, default=(phase_of[node], end))
    names = {**dict(enumerate(captured.nodes)), end: None}
    return {node: (phase, names[index]) for node, (phase, index) in last.items()}


def is_view(node: Node) -> bool:
    """Whether the result shows the memory of an argument."""
    return any(each.alias_info is not None for each in node.function._schema.returns)
