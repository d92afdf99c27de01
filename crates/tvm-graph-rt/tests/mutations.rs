//! Thousands of damaged graphs and parameter files: errors, never a panic, and a graph that is
//! still accepted runs without touching memory that is not its own.

mod support;

use support::{Random, graph_json, kernels};
use tvm_graph_rt::{
    DataType, Graph, GraphExecutor, Module, NativeModule, PackedFunc, Shape, Storage, Tensor,
    load_param_dict,
};

/// Has every kernel: each fills its outputs, whatever their number.
struct AnyKernel(Vec<NativeModule>);

impl AnyKernel {
    fn new() -> Self {
        let module = |outputs| {
            let mut module = NativeModule::default();
            module.register("any", outputs, move |args| {
                for output in 0..outputs {
                    if let Ok(output) = args.output::<f32>(output) {
                        output.fill(1.0);
                    }
                }
                Ok(())
            });
            module
        };
        AnyKernel((0..4).map(module).collect())
    }
}

/// A module for one number of outputs.
struct Outputs<'a>(&'a NativeModule);

impl Module for Outputs<'_> {
    fn get_function(&self, _name: &str) -> Option<PackedFunc> {
        self.0.get_function("any")
    }
}

/// Damages a text: bytes changed, dropped, doubled, and numbers replaced.
fn mutate(text: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, bytes[at]),
            3 => bytes.truncate(at),
            _ => {
                // The next digit becomes another: the JSON stays whole and reaches the checks.
                if let Some(digit) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes[at + digit] = b'0' + random.below(10) as u8;
                }
            }
        }
    }
    bytes
}

#[test]
fn damaged_graphs_are_errors_or_run() {
    let good = graph_json().to_string();
    let modules = AnyKernel::new();
    let mut random = Random(1);
    let (mut refused, mut ran) = (0, 0);
    for _ in 0..20_000 {
        let bytes = mutate(good.as_bytes(), &mut random);
        let Ok(graph) = String::from_utf8_lossy(&bytes).parse::<Graph>() else {
            refused += 1;
            continue;
        };
        if graph.activation_bytes() > 1 << 20 {
            continue;
        }
        let entries: Vec<_> = graph
            .nodes()
            .iter()
            .filter(|node| *node.op() == tvm_graph_rt::NodeOp::Null)
            .flat_map(|node| node.outputs().map(|entry| (node.name().to_owned(), entry)))
            .collect();
        for module in &modules.0 {
            let Ok(mut executor) = GraphExecutor::new(graph.clone(), &Outputs(module)) else {
                continue;
            };
            for (name, entry) in &entries {
                if graph.shape(*entry).element_count() < 1 << 20 {
                    let zeros = Tensor::zeros(graph.dtype(*entry), graph.shape(*entry).clone());
                    executor.set_input(name, &zeros.expect("small")).expect("the graph's own");
                }
            }
            ran += usize::from(executor.run().is_ok());
        }
        if let Ok(mut executor) = GraphExecutor::new(graph, &kernels()) {
            for (name, entry) in &entries {
                let _ = executor.graph().shape(*entry);
                let _ = executor.input_mut::<f32>(name).map(|x| x.fill(1.0));
            }
            if executor.run().is_ok() {
                ran += 1;
                for output in 0..executor.output_count() {
                    assert!(executor.get_output(output).is_ok());
                }
            }
        }
    }
    assert!(refused > 5_000 && ran > 500, "both must be met: {refused} refused, {ran} ran");
}

/// Two parameters as TVM writes them.
fn params_file() -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xF7E5_8D4F_0504_9CB7u64.to_le_bytes());
    file.extend([0; 8]);
    file.extend(2u64.to_le_bytes());
    for name in ["p0", "bias"] {
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
    }
    file.extend(2u64.to_le_bytes());
    for extents in [vec![1i64, 4], vec![2]] {
        file.extend(0xDD5E_40F0_96B4_A13Fu64.to_le_bytes());
        file.extend([0; 8]);
        file.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        file.extend((extents.len() as i32).to_le_bytes());
        file.extend([2, 32, 1, 0]);
        for extent in &extents {
            file.extend(extent.to_le_bytes());
        }
        let bytes = 4 * extents.iter().product::<i64>();
        file.extend(bytes.to_le_bytes());
        file.extend(vec![7; bytes as usize]);
    }
    file
}

#[test]
fn damaged_parameter_files_are_errors_or_whole() {
    let good = params_file();
    assert_eq!(load_param_dict(&good).expect("whole").len(), 2);
    let mut random = Random(2);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..50_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = 0xff,
                2 => bytes[at] ^= 1 << random.below(8),
                _ => bytes[at] = random.below(256) as u8,
            }
        }
        match load_param_dict(&bytes) {
            Ok(params) => {
                read += 1;
                for tensor in params.values() {
                    assert_eq!(
                        tensor.shape().byte_count(tensor.dtype()),
                        Ok(tensor.as_bytes().len())
                    );
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 5_000 && read > 1_000, "both must be met: {refused} refused, {read} read");
}

#[test]
fn a_file_that_claims_more_than_it_has_reserves_no_memory_for_it() {
    let mut file = params_file();
    file[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(load_param_dict(&file).is_err());
    // A tensor of the largest shape there is, over no data.
    let shape = Shape::new([isize::MAX as usize]).expect("fits as elements");
    assert!(Tensor::new(DataType::UINT8, shape, Storage::Borrowed(&[])).is_err());
}
