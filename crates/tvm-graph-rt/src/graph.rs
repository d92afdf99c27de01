//! TVM's graph description, graph.json, read and checked.
//!
//! A [`Graph`] that exists can be executed without another look at its indices: every reference
//! points backwards to an output that is there, every entry has an element type, a shape and a
//! storage, and the storage plan never overwrites a value that is still to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Deserialize;
use tensor::{ALIGNMENT, DType, ParseDTypeError, Shape, ShapeError};

/// A straight-line program of kernel calls, and the plan of where their tensors lie.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    heads: Vec<EntryId>,
}

/// One node: a tensor from outside, or the call of a kernel.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    op: NodeOp,
    inputs: Vec<EntryId>,
    outputs: std::ops::Range<usize>,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOp {
    /// A tensor from outside: an input or a parameter.
    Null,
    /// The call of the kernel with this name.
    TvmOp(String),
}

/// One output of one node, counted through the whole graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub(crate) usize);

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) bytes: usize,
    pub(crate) storage: u32,
    /// Where in its storage the tensor begins, bytes.
    pub(crate) offset: usize,
    /// A tensor from outside that is needed only until its last reader has run: kernels may write
    /// to its place then, and it has to be set again before the next run.
    pub(crate) consumed: bool,
}

impl Entry {
    /// The bytes of its storage that it takes.
    fn range(&self) -> std::ops::Range<usize> {
        // Cannot overflow: checked when the graph was read.
        self.offset..self.offset + self.bytes
    }
}

/// A graph description that cannot be executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Not JSON, or not the schema of a graph.
    #[error("malformed graph description")]
    Json(#[source] serde_json::Error),
    /// A list does not have one value per node or per entry.
    #[error("the graph's `{list}` has {actual} values where {expected} are needed")]
    ListLength {
        /// Which list.
        list: &'static str,
        /// How many values it needs.
        expected: usize,
        /// How many it has.
        actual: usize,
    },
    /// A list of the graph says it holds another kind of value.
    #[error("the graph's `{list}` holds `{actual}`, not `{expected}`")]
    ListKind {
        /// Which list.
        list: &'static str,
        /// The kind that this list has.
        expected: &'static str,
        /// The kind that the graph names.
        actual: String,
    },
    /// `node_row_ptr` does not count up by each node's outputs from 0.
    #[error("node `{0}` has a wrong place in `node_row_ptr`")]
    RowPointer(String),
    /// `arg_nodes` is not the list of the nodes without an operator.
    #[error("`arg_nodes` does not list the nodes without an operator")]
    ArgNodes,
    /// A node has an operator that this runtime does not know.
    #[error("node `{node}` has unknown operator `{op}`")]
    UnknownOp {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A node asks for something, or lacks something.
    #[error("node `{node}` has {attribute} `{value}`, which cannot be carried out")]
    Attribute {
        /// The node.
        node: String,
        /// Which attribute.
        attribute: &'static str,
        /// What it says.
        value: String,
    },
    /// A node reads something that is not there, or that comes later.
    #[error("`{node}` refers to output {output} of node {index}, which does not come before it")]
    Reference {
        /// The node, or `heads`.
        node: String,
        /// The node that it refers to.
        index: usize,
        /// Which of its outputs.
        output: usize,
    },
    /// Two tensors from outside have one name.
    #[error("two inputs are called `{0}`")]
    DuplicateInput(String),
    /// There is nothing to answer with.
    #[error("the graph has no output")]
    NoOutput,
    /// An element type is unknown.
    #[error("node `{node}`")]
    DType {
        /// The node.
        node: String,
        /// Which type.
        source: ParseDTypeError,
    },
    /// Extents are impossible.
    #[error("node `{node}`")]
    Shape {
        /// The node.
        node: String,
        /// Which extents.
        source: ShapeError,
    },
    /// The storage plan gives a tensor a place that is taken.
    #[error("node `{node}` would overwrite storage {storage} while `{holder}` is still in it")]
    StorageInUse {
        /// The node that writes.
        node: String,
        /// Where.
        storage: u32,
        /// The node whose value is still needed.
        holder: String,
    },
    /// A tensor begins in its storage at a place that is negative, misaligned or out of reach.
    #[error("node `{node}` has impossible storage offset {offset}")]
    StorageOffset {
        /// The node.
        node: String,
        /// What its entry says, bytes.
        offset: i64,
    },
    /// Something other than a tensor from outside is said to be consumed.
    #[error("entry {0} is no tensor from outside that a run could consume")]
    Consumed(i64),
    /// A storage id below zero or above 2^32.
    #[error("node `{node}` has impossible storage id {id}")]
    StorageId {
        /// The node.
        node: String,
        /// What its entry says.
        id: i64,
    },
    /// All activations together do not fit this machine's memory.
    #[error("the graph's activations do not fit this machine's memory")]
    TooLarge,
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does.
    pub fn op(&self) -> &NodeOp {
        &self.op
    }

    /// What it reads, in the order of the kernel's arguments.
    pub fn inputs(&self) -> &[EntryId] {
        &self.inputs
    }

    /// What it makes, in the order of the kernel's arguments.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = EntryId> + use<> {
        self.outputs.clone().map(EntryId)
    }
}

impl Graph {
    /// All nodes, each after those it reads from.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The graph's outputs.
    pub fn heads(&self) -> &[EntryId] {
        &self.heads
    }

    /// Element type of a tensor.
    pub fn dtype(&self, entry: EntryId) -> DType {
        self.entries[entry.0].dtype
    }

    /// Extents of a tensor.
    pub fn shape(&self, entry: EntryId) -> &Shape {
        &self.entries[entry.0].shape
    }

    /// Bytes of the arena that holds every tensor the kernels write, each storage aligned to
    /// [`ALIGNMENT`]. Inputs and parameters are not in it.
    pub fn activation_bytes(&self) -> usize {
        // Cannot overflow: the constructor has added them up.
        self.storages().values().sum()
    }

    pub(crate) fn entry(&self, entry: EntryId) -> &Entry {
        &self.entries[entry.0]
    }

    /// Bytes of each storage that kernels write or that a run consumes, rounded up to whole cache
    /// lines.
    pub(crate) fn storages(&self) -> BTreeMap<u32, usize> {
        let mut storages = BTreeMap::new();
        for node in &self.nodes {
            for entry in node.outputs() {
                let entry = &self.entries[entry.0];
                if node.op != NodeOp::Null || entry.consumed {
                    let largest: &mut usize = storages.entry(entry.storage).or_default();
                    *largest = entry.range().end.next_multiple_of(ALIGNMENT).max(*largest);
                }
            }
        }
        storages
    }

    fn read(raw: RawGraph) -> Result<Self, GraphError> {
        let (nodes, heads) = read_nodes(&raw)?;
        let entries = read_entries(&raw.attrs, &nodes)?;
        let graph = Graph { nodes, entries, heads };
        graph.check_inputs(&raw.arg_nodes)?;
        graph.check_storage()?;
        Ok(graph)
    }

    fn check_inputs(&self, arg_nodes: &[usize]) -> Result<(), GraphError> {
        let inputs = || self.nodes.iter().enumerate().filter(|(_, node)| node.op == NodeOp::Null);
        if !inputs().map(|(index, _)| index).eq(arg_nodes.iter().copied()) {
            return Err(GraphError::ArgNodes);
        }
        let mut names = BTreeSet::new();
        match inputs().find(|(_, node)| !names.insert(&node.name)) {
            Some((_, node)) => Err(GraphError::DuplicateInput(node.name.clone())),
            None => Ok(()),
        }
    }

    /// Walks through the calls and makes sure that each value is whole until its last reader,
    /// that inputs and parameters are never overwritten, and that the sizes add up.
    fn check_storage(&self) -> Result<(), GraphError> {
        let total = self.storages().values().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if total.is_none_or(|total| isize::try_from(total).is_err()) {
            return Err(GraphError::TooLarge);
        }
        // The last reader of each entry; heads are read after all.
        let mut last_use = vec![0; self.entries.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for output in node.outputs() {
                let kept = node.op == NodeOp::Null && !self.entries[output.0].consumed;
                last_use[output.0] = if kept { usize::MAX } else { index };
            }
            for input in &node.inputs {
                last_use[input.0] = last_use[input.0].max(index);
            }
        }
        for head in &self.heads {
            last_use[head.0] = usize::MAX;
        }
        // Inputs and parameters are there from the start, wherever their nodes stand.
        let (inputs, calls): (Vec<_>, Vec<_>) =
            self.nodes.iter().enumerate().partition(|(_, node)| node.op == NodeOp::Null);
        let inputs = inputs.into_iter().map(|(_, node)| (0, node));
        let mut holders: BTreeMap<u32, Vec<(EntryId, &Node)>> = BTreeMap::new();
        for (step, node) in inputs.chain(calls) {
            for output in node.outputs() {
                let entry = &self.entries[output.0];
                let living = holders.entry(entry.storage).or_default();
                living.retain(|(held, _)| last_use[held.0] >= step);
                let taken = living.iter().find(|(held, _)| {
                    let held = self.entries[held.0].range();
                    let own = entry.range();
                    // One without bytes has a place too, which nothing else may have.
                    own.start < held.end.max(held.start + 1)
                        && held.start < own.end.max(own.start + 1)
                });
                if let Some((_, holder)) = taken {
                    let (node, holder) = (node.name.clone(), holder.name.clone());
                    return Err(GraphError::StorageInUse { node, storage: entry.storage, holder });
                }
                living.push((output, node));
            }
        }
        Ok(())
    }
}

impl FromStr for Graph {
    type Err = GraphError;

    fn from_str(json: &str) -> Result<Self, Self::Err> {
        Self::read(serde_json::from_str(json).map_err(GraphError::Json)?)
    }
}

impl TryFrom<&str> for Graph {
    type Error = GraphError;

    fn try_from(json: &str) -> Result<Self, Self::Error> {
        json.parse()
    }
}

#[derive(Deserialize)]
struct RawGraph {
    nodes: Vec<RawNode>,
    arg_nodes: Vec<usize>,
    heads: Vec<Vec<usize>>,
    node_row_ptr: Vec<usize>,
    attrs: RawAttrs,
}

#[derive(Deserialize)]
struct RawNode {
    op: String,
    name: String,
    inputs: Vec<Vec<usize>>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawAttrs {
    storage_id: (String, Vec<i64>),
    shape: (String, Vec<Vec<i64>>),
    dltype: (String, Vec<String>),
    /// Not TVM's own: where in its storage each entry begins, bytes; absent if that is always 0.
    storage_offset: Option<(String, Vec<i64>)>,
    /// Not TVM's own: which entries from outside a run may write over after their last reader.
    consumed: Option<(String, Vec<i64>)>,
}

fn read_nodes(raw: &RawGraph) -> Result<(Vec<Node>, Vec<EntryId>), GraphError> {
    let rows = &raw.node_row_ptr;
    expect_length("node_row_ptr", raw.nodes.len() + 1, rows.len())?;
    let mut nodes: Vec<Node> = Vec::with_capacity(raw.nodes.len());
    for (raw_node, row) in raw.nodes.iter().zip(rows.windows(2)) {
        let name = raw_node.name.clone();
        let (start, end) = (row[0], row[1]);
        let expected_start = nodes.last().map_or(0, |node| node.outputs.end);
        let (op, output_count) = read_op(raw_node)?;
        if start != expected_start || end.checked_sub(start) != Some(output_count) {
            return Err(GraphError::RowPointer(name));
        }
        let mut inputs = Vec::with_capacity(raw_node.inputs.len());
        for reference in &raw_node.inputs {
            inputs.push(resolve(&nodes, &name, reference)?);
        }
        nodes.push(Node { name, op, inputs, outputs: start..end });
    }
    let mut heads = Vec::with_capacity(raw.heads.len());
    for reference in &raw.heads {
        heads.push(resolve(&nodes, "heads", reference)?);
    }
    if heads.is_empty() { Err(GraphError::NoOutput) } else { Ok((nodes, heads)) }
}

/// What a node does and how many outputs it has.
fn read_op(node: &RawNode) -> Result<(NodeOp, usize), GraphError> {
    let attribute = |attribute: &'static str, value: &str| GraphError::Attribute {
        node: node.name.clone(),
        attribute,
        value: value.to_owned(),
    };
    match node.op.as_str() {
        "null" if node.inputs.is_empty() => Ok((NodeOp::Null, 1)),
        "null" => Err(attribute("num_inputs", &node.inputs.len().to_string())),
        "tvm_op" => {
            let get = |name: &'static str| {
                node.attrs.get(name).ok_or_else(|| attribute(name, "")).map(String::as_str)
            };
            let kernel = get("func_name")?;
            if kernel.is_empty() {
                return Err(attribute("func_name", kernel));
            }
            let input_count = get("num_inputs")?;
            if input_count.parse() != Ok(node.inputs.len()) {
                return Err(attribute("num_inputs", input_count));
            }
            let outputs = get("num_outputs")?;
            let output_count = outputs.parse().ok().filter(|&count| count > 0);
            let output_count = output_count.ok_or_else(|| attribute("num_outputs", outputs))?;
            match get("flatten_data")? {
                "0" => Ok((NodeOp::TvmOp(kernel.to_owned()), output_count)),
                other => Err(attribute("flatten_data", other)),
            }
        }
        op => Err(GraphError::UnknownOp { node: node.name.clone(), op: op.to_owned() }),
    }
}

/// `[node, output]` or `[node, output, version]` among the nodes so far.
fn resolve(nodes: &[Node], from: &str, reference: &[usize]) -> Result<EntryId, GraphError> {
    let (index, output) = match *reference {
        [index, output] | [index, output, 0] => (index, output),
        _ => {
            return Err(GraphError::ListLength {
                list: "inputs",
                expected: 3,
                actual: reference.len(),
            });
        }
    };
    nodes
        .get(index)
        .and_then(|node| node.outputs().nth(output))
        .ok_or_else(|| GraphError::Reference { node: from.to_owned(), index, output })
}

fn read_entries(attrs: &RawAttrs, nodes: &[Node]) -> Result<Vec<Entry>, GraphError> {
    let count = nodes.last().map_or(0, |node| node.outputs.end);
    expect_list("storage_id", "list_int", &attrs.storage_id.0, attrs.storage_id.1.len(), count)?;
    expect_list("shape", "list_shape", &attrs.shape.0, attrs.shape.1.len(), count)?;
    expect_list("dltype", "list_str", &attrs.dltype.0, attrs.dltype.1.len(), count)?;
    let zeros = || ("list_int".to_owned(), vec![0; count]);
    let offsets = attrs.storage_offset.clone().unwrap_or_else(zeros);
    expect_list("storage_offset", "list_int", &offsets.0, offsets.1.len(), count)?;
    let mut entries = Vec::with_capacity(count);
    for node in nodes {
        for EntryId(index) in node.outputs() {
            let shape_error = |source| GraphError::Shape { node: node.name.clone(), source };
            let dtype: DType = attrs.dltype.1[index]
                .parse()
                .map_err(|source| GraphError::DType { node: node.name.clone(), source })?;
            let shape = Shape::from_signed(&attrs.shape.1[index]).map_err(shape_error)?;
            let bytes = shape.byte_count(dtype).map_err(shape_error)?;
            let id = attrs.storage_id.1[index];
            let storage = u32::try_from(id)
                .map_err(|_| GraphError::StorageId { node: node.name.clone(), id })?;
            let offset = offsets.1[index];
            let begin = usize::try_from(offset).ok().filter(|begin| {
                let end = begin.checked_add(bytes).and_then(|end| isize::try_from(end).ok());
                begin % ALIGNMENT == 0 && end.is_some()
            });
            let begin = begin
                .ok_or_else(|| GraphError::StorageOffset { node: node.name.clone(), offset })?;
            let consumed = false;
            entries.push(Entry { dtype, shape, bytes, storage, offset: begin, consumed });
        }
    }
    read_consumed(attrs, nodes, &mut entries)?;
    Ok(entries)
}

fn read_consumed(
    attrs: &RawAttrs,
    nodes: &[Node],
    entries: &mut [Entry],
) -> Result<(), GraphError> {
    let Some((kind, consumed)) = &attrs.consumed else { return Ok(()) };
    expect_list("consumed", "list_int", kind, consumed.len(), consumed.len())?;
    for &id in consumed {
        let outside = nodes.iter().filter(|node| node.op == NodeOp::Null);
        let entry = outside
            .flat_map(Node::outputs)
            .find(|entry| i64::try_from(entry.0).is_ok_and(|index| index == id))
            .ok_or(GraphError::Consumed(id))?;
        entries[entry.0].consumed = true;
    }
    Ok(())
}

fn expect_length(list: &'static str, expected: usize, actual: usize) -> Result<(), GraphError> {
    if expected == actual { Ok(()) } else { Err(GraphError::ListLength { list, expected, actual }) }
}

fn expect_list(
    list: &'static str,
    expected: &'static str,
    kind: &str,
    len: usize,
    count: usize,
) -> Result<(), GraphError> {
    if kind != expected {
        return Err(GraphError::ListKind { list, expected, actual: kind.to_owned() });
    }
    expect_length(list, count, len)
}
