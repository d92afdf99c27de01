//! A graph runtime for TVM: Graph, GraphExecutor, SystemLibModule.
