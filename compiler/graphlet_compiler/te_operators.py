"""Operators that TVM's importer lacks or gets wrong, and who computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphlet_compiler import resampling, te_gather, te_loops, te_windows
from graphlet_compiler.graph import Graph, Node
from graphlet_compiler.te_call import Call


def _has_indices(call: Call) -> bool:
    return len(call.node.outputs) > 1 and bool(call.node.outputs[1])


def _widens_halves(call: Call) -> bool:
    source = str(call.graph.dtypes[call.node.inputs[0]])
    return source in ("float16", "bfloat16") and call.dtype() == "float64"


_OPERATORS: dict[str, Callable[[Call], Any]] = {
    "BitCast": te_gather.bit_cast,
    "Col2Im": te_windows.col2im,
    "CumProd": te_loops.scan,
    "CumSum": te_loops.scan,
    "DeformConv": te_windows.deformable,
    "Det": te_loops.determinant,
    "Gather": te_gather.gather,
    "GatherElements": te_gather.gather_elements,
    "GatherND": te_gather.gather_nd,
    "MaxUnpool": te_loops.max_unpool,
    "OneHot": te_gather.one_hot,
    "ReverseSequence": te_gather.reverse_sequence,
    "Scatter": te_loops.scatter_elements,
    "ScatterElements": te_loops.scatter_elements,
    "ScatterND": te_loops.scatter_nd,
    "TensorScatter": te_gather.tensor_scatter,
    "TopK": te_loops.top_k,
}
# Those that TVM computes too, but not in every form.
_FORMS: dict[str, tuple[Callable[[Call], bool], Callable[[Call], Any]]] = {
    "Cast": (_widens_halves, te_gather.halves_to_doubles),
    "MaxPool": (_has_indices, te_loops.max_pool),
    "Resize": (lambda call: resampling.needed(call.graph, call.node), te_windows.resize),
    "RoiAlign": (lambda call: call.node.attr("mode", "avg") == "max", te_windows.roi_max),
    "Slice": (lambda call: "starts" in call.node.attributes, te_gather.slice_of_attributes),
    "Upsample": (lambda call: resampling.needed(call.graph, call.node), te_windows.resize),
}


def known(node: Node) -> bool:
    """Whether this module computes the operator in some form."""
    return not node.domain and (node.op in _OPERATORS or node.op in _FORMS)


def compute(graph: Graph, node: Node, builder: Any, values: Sequence[Any]) -> Any | None:
    """A call that computes the node; ``None`` if that is left to TVM."""
    call = Call(graph, node, builder, values)
    if node.domain:
        return None
    if node.op in _OPERATORS:
        return _OPERATORS[node.op](call)
    applies, function = _FORMS.get(node.op, (None, None))
    if applies is None or function is None or not applies(call):
        return None
    return function(call)
