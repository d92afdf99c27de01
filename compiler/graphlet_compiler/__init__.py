"""ONNX to TVM to WebAssembly: what `graphlet build` calls to turn a model into kernels.

The package reads an ONNX file and the model's specification (``model.toml`` as JSON) and writes
``graph.json``, ``graph.params``, ``graph.o`` and ``libgraph_wasm32.a``. The same input gives the
same bytes.
"""

__version__ = "0.1.0"
