//! `graphlet-node`: the node agent, which `graphlet node` starts.

fn main() {}
