//! The executor with kernels written in Rust.

mod support;

use support::{
    consuming_executor, consuming_graph, executor, graph, graph_json, kernels, misaligned, row,
};
use tvm_graph_rt::{
    Block, CallError, DataType, ExecutorError, Graph, GraphExecutor, NativeModule, Shape, Tensor,
};

fn values(executor: &GraphExecutor, output: usize) -> Vec<f32> {
    let output = executor.get_output(output).expect("an output");
    output.as_slice().expect("float32").to_vec()
}

#[test]
fn a_graph_computes_what_its_nodes_say_again_and_again() {
    let mut executor = executor();
    for factor in [1.0, -3.0, 0.5] {
        let x = [1.0, 2.0, 3.0, 4.0].map(|x| factor * x);
        executor.set_input("x", &row(x)).expect("an input");
        executor.run().expect("all set");
        // -(2x + p0) + 2x = -p0, whatever x is; the first half of the split is 2x + p0.
        assert_eq!(values(&executor, 0), [-10.0, -20.0, -30.0, -40.0]);
        let sum: Vec<_> =
            x.iter().zip([10.0, 20.0, 30.0, 40.0]).map(|(x, p)| 2.0 * x + p).collect();
        assert_eq!(values(&executor, 1), sum);
    }
}

#[test]
fn an_input_filled_in_place_is_read_and_kept() {
    let mut executor = executor();
    executor.input_mut::<f32>("x").expect("an input").fill(5.0);
    executor.run().expect("all set");
    assert_eq!(values(&executor, 1), [20.0, 30.0, 40.0, 50.0]);
    assert_eq!(executor.get_input("x").expect("set").as_slice::<f32>(), Ok(&[5.0; 4][..]));
    let place = executor.input_mut::<f32>("x").expect("an input").as_ptr();
    assert_eq!(place, executor.input_mut::<f32>("x").expect("an input").as_ptr());
}

#[test]
fn a_run_on_tensors_that_lie_elsewhere_reads_them_there_and_keeps_none() {
    let mut executor = executor();
    for factor in [1.0, -3.0] {
        let x = row([1.0, 2.0, 3.0, 4.0].map(|x| factor * x));
        executor.run_on(&[x.view()]).expect("one input");
        assert_eq!(values(&executor, 1)[1], factor * 4.0 + 20.0);
    }
    assert!(matches!(executor.run(), Err(ExecutorError::NotSet(name)) if name == "x"));
    assert_eq!(executor.passed_through(0), None);

    let x = row([1.0; 4]);
    let two = executor.run_on(&[x.view(), x.view()]);
    assert!(matches!(two, Err(ExecutorError::InputCount { expected: 1, actual: 2 })));
    assert!(matches!(executor.run_on(&[]), Err(ExecutorError::InputCount { actual: 0, .. })));
    let odd = misaligned([1.0; 4]);
    let odd = executor.run_on(&[odd.view()]);
    assert!(matches!(odd, Err(ExecutorError::Tensor { name, .. }) if name == "x"));
    let integers = Tensor::zeros(DataType::INT32, x.shape().clone()).expect("small");
    let integers = executor.run_on(&[integers.view()]);
    assert!(matches!(integers, Err(ExecutorError::WrongDType { name, .. }) if name == "x"));
}

#[test]
fn aligned_params_are_used_in_place_and_others_are_copied_once() {
    let mut executor = executor();
    let aligned = row([1.0; 4]);
    let place = aligned.as_bytes().as_ptr();
    executor.load_params([("p0".to_owned(), aligned)].into()).expect("the graph's own");
    let loaded = executor.get_input("p0").expect("loaded");
    assert_eq!(loaded.as_bytes().as_ptr(), place);

    executor.load_params([("p0".to_owned(), misaligned([1.0; 4]))].into()).expect("copied");
    let loaded = executor.get_input("p0").expect("loaded");
    assert_eq!(loaded.as_bytes().as_ptr().align_offset(64), 0);
    assert_eq!(loaded.as_slice::<f32>(), Ok(&[1.0; 4][..]));
}

#[test]
fn params_come_from_a_block_without_a_copy() {
    let weights = row([10.0, 20.0, 30.0, 40.0]);
    let json = graph_json().to_string();
    let block = tensor::BlockBuilder::new(&json, "{}").tensor("p0", weights.view()).build();
    // A block in a module is aligned; here a tensor does it.
    let block = block.expect("small");
    let block = Tensor::copy_of(Shape::new([block.len()]).expect("small"), &block).expect("fits");
    let block: &'static Tensor<'static> = Box::leak(Box::new(block));
    let block = Block::parse(block.as_bytes()).expect("just built");
    let graph: Graph = block.graph().parse().expect("well-formed");
    let mut executor = GraphExecutor::new(graph, &kernels()).expect("all kernels are there");
    executor.load_params_from_block(&block).expect("the graph's own");
    let in_block = block.tensors()[0].view().as_bytes().as_ptr();
    assert_eq!(executor.get_input("p0").expect("loaded").as_bytes().as_ptr(), in_block);
    assert_eq!(executor.inputs().map(|(name, ..)| name).collect::<Vec<_>>(), ["x"]);
    executor.input_mut::<f32>("x").expect("an input").fill(0.0);
    executor.run().expect("all set");
    assert_eq!(values(&executor, 0), [-10.0, -20.0, -30.0, -40.0]);
}

#[test]
fn nodes_run_one_by_one_give_what_a_run_gives() {
    let mut whole = executor();
    let mut stepped = executor();
    for executor in [&mut whole, &mut stepped] {
        executor.set_input("x", &row([1.0, 2.0, 3.0, 4.0])).expect("an input");
    }
    whole.run().expect("all set");
    let names: Vec<_> = stepped.nodes().collect();
    assert_eq!(
        names,
        [("double_1", "double"), ("add_3", "add"), ("split_4", "split"), ("add_5", "add")]
    );
    for node in 0..stepped.node_count() {
        stepped.run_node(node).expect("all set");
    }
    assert_eq!(values(&whole, 0), values(&stepped, 0));
    assert_eq!(values(&whole, 1), values(&stepped, 1));
    assert!(matches!(stepped.run_node(4), Err(ExecutorError::UnknownNode { index: 4, count: 4 })));
}

#[test]
fn an_unset_input_or_param_is_named_before_anything_runs() {
    let mut executor = GraphExecutor::new(graph(), &kernels()).expect("all kernels are there");
    let not_set = |result| matches!(result, Err(ExecutorError::NotSet(name)) if name == "x");
    assert!(not_set(executor.run()));
    assert!(not_set(executor.run_node(0)));
    executor.input_mut::<f32>("x").expect("an input").fill(1.0);
    let error = executor.run().expect_err("p0 is missing");
    assert_eq!(error.to_string(), "`p0` has no value yet");
}

#[test]
fn names_shapes_and_types_that_do_not_fit_are_errors() {
    let mut executor = executor();
    let scalar = Tensor::copy_of(Shape::default(), &[1.0f32]).expect("fits");
    let flat = Tensor::copy_of(Shape::new([4]).expect("small"), &[1.0f32; 4]).expect("fits");
    let ints = Tensor::copy_of(Shape::new([1, 4]).expect("small"), &[1i32; 4]).expect("fits");
    let text = |result: Result<(), ExecutorError>| result.expect_err("does not fit").to_string();
    assert_eq!(text(executor.set_input("y", &row([0.0; 4]))), "the graph has no input `y`");
    assert_eq!(text(executor.set_input("p0", &row([0.0; 4]))), "`p0` is a parameter, not an input");
    assert_eq!(text(executor.set_input("x", &scalar)), "`x` has shape [1, 4] in the graph, not []");
    assert_eq!(text(executor.set_input("x", &flat)), "`x` has shape [1, 4] in the graph, not [4]");
    assert_eq!(text(executor.set_input("x", &ints)), "`x` holds float32 in the graph, not int32");
    assert!(matches!(
        executor.input_mut::<u8>("x"),
        Err(ExecutorError::Tensor { name, .. }) if name == "x"
    ));
    let mut load = |name: &str, tensor| executor.load_params([(name.to_owned(), tensor)].into());
    assert_eq!(text(load("p1", row([0.0; 4]))), "the graph has no parameter `p1`");
    assert_eq!(text(load("p0", flat)), "`p0` has shape [1, 4] in the graph, not [4]");
    assert_eq!(text(load("p0", ints)), "`p0` holds float32 in the graph, not int32");
    assert!(matches!(
        executor.get_output(2),
        Err(ExecutorError::UnknownOutput { index: 2, count: 2 })
    ));
    assert_eq!(executor.get_output(0).expect("an output").dtype(), DataType::FLOAT32);
}

#[test]
fn a_missing_kernel_is_named_with_its_node() {
    let error = GraphExecutor::new(graph(), &NativeModule::default()).expect_err("no kernels");
    assert_eq!(error.to_string(), "node `double_1` calls unknown kernel `double`");
}

#[test]
fn a_kernel_with_another_number_of_outputs_is_refused() {
    let mut module = kernels();
    module.register("split", 1, |_| Ok(()));
    let error = GraphExecutor::new(graph(), &module).expect_err("two outputs needed");
    assert_eq!(error.to_string(), "kernel `split` cannot be called as node `split_4` wants");
}

#[test]
fn a_failing_kernel_is_named_and_says_why_and_the_next_run_is_right() {
    let mut module = kernels();
    module.register("double", 1, |args| {
        let x = args.input::<f32>(0)?;
        if x[0] < 0.0 {
            return Err(format!("{} is negative", x[0]).into());
        }
        args.output::<f32>(0)?.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
        Ok(())
    });
    let mut executor = GraphExecutor::new(graph(), &module).expect("all kernels are there");
    executor.load_params([("p0".to_owned(), row([0.0; 4]))].into()).expect("the graph's own");
    executor.set_input("x", &row([-1.0; 4])).expect("an input");
    let error = executor.run().expect_err("negative");
    assert_eq!(error.to_string(), "node `double_1` failed in kernel `double`");
    let ExecutorError::Kernel { source: CallError::Raised { code, message }, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((code, message.as_str()), (-1, "-1 is negative"));
    executor.set_input("x", &row([1.0; 4])).expect("an input");
    executor.run().expect("positive");
    assert_eq!(values(&executor, 1), [2.0; 4]);
}

#[test]
fn a_kernel_that_asks_for_the_wrong_tensor_fails_and_does_not_crash() {
    for (wrong, expected) in [
        (0, "there is no input tensor 1"),
        (1, "there is no output tensor 1"),
        (2, "the tensor holds float32, not uint8"),
    ] {
        let mut module = kernels();
        module.register("double", 1, move |args| {
            match wrong {
                0 => drop(args.input::<f32>(1)?),
                1 => drop(args.output::<f32>(1)?.first()),
                _ => drop(args.input::<u8>(0)?),
            }
            Ok(())
        });
        let mut executor = GraphExecutor::new(graph(), &module).expect("all kernels are there");
        executor.load_params([("p0".to_owned(), row([0.0; 4]))].into()).expect("its own");
        executor.set_input("x", &row([1.0; 4])).expect("an input");
        let ExecutorError::Kernel { source, .. } = executor.run().expect_err("wrong") else {
            panic!("another error")
        };
        assert_eq!(source.to_string(), format!("{expected} (code -1)"));
    }
}

#[test]
fn an_output_may_be_an_input() {
    let mut json = graph_json();
    json["heads"] = serde_json::json!([[0, 0, 0]]);
    let graph: Graph = json.to_string().parse().expect("well-formed");
    let mut executor = GraphExecutor::new(graph, &kernels()).expect("all kernels are there");
    assert!(matches!(executor.get_output(0), Err(ExecutorError::NotSet(name)) if name == "x"));
    executor.set_input("x", &row([7.0; 4])).expect("an input");
    assert_eq!(values(&executor, 0), [7.0; 4]);
}

#[test]
fn an_executor_may_move_to_another_thread() {
    let mut executor = executor();
    executor.input_mut::<f32>("x").expect("an input").fill(1.0);
    executor.run().expect("all set");
    let output = std::thread::spawn(move || {
        executor.run().expect("all set");
        values(&executor, 1)
    });
    assert_eq!(output.join().expect("no panic"), [12.0, 22.0, 32.0, 42.0]);
}

#[test]
fn what_is_written_into_lent_scratch_changes_no_answer() {
    let mut executor = executor();
    executor.set_input("x", &row([1.0, 2.0, 3.0, 4.0])).unwrap();
    executor.run().unwrap();
    let expected = executor.get_output(0).unwrap().as_slice::<f32>().unwrap().to_vec();
    let (x, scratch) = executor.input_and_scratch::<f32>("x").unwrap();
    assert_eq!(x, [1.0, 2.0, 3.0, 4.0], "an input keeps its values");
    assert!(!scratch.is_empty());
    scratch.fill(0xa5);
    executor.run().unwrap();
    assert_eq!(executor.get_output(0).unwrap().as_slice::<f32>().unwrap(), expected);
    assert!(executor.input_and_scratch::<f32>("p0").is_err(), "a parameter is no input");
    assert!(executor.input_and_scratch::<i64>("x").is_err(), "of another type");
}

#[test]
fn an_input_that_runs_consume_is_filled_before_each() {
    let mut executor = consuming_executor();
    assert!(matches!(executor.run(), Err(ExecutorError::NotSet(name)) if name == "x"));
    for factor in [1.0, -3.0] {
        let x = [1.0, 2.0, 3.0, 4.0].map(|x| factor * x);
        executor.set_input("x", &row(x)).expect("an input");
        assert_eq!(executor.get_input("x").expect("set").as_slice::<f32>(), Ok(&x[..]));
        executor.run().expect("all set");
        assert_eq!(values(&executor, 0), [-10.0, -20.0, -30.0, -40.0]);
        assert_eq!(values(&executor, 1)[1], 2.0 * x[1] + 20.0);
        assert!(matches!(executor.run(), Err(ExecutorError::NotSet(name)) if name == "x"));
        assert!(matches!(executor.get_input("x"), Err(ExecutorError::NotSet(_))));
    }
    let x = row([1.0; 4]);
    executor.run_on(&[x.view()]).expect("one input");
    assert_eq!(values(&executor, 1), [12.0, 22.0, 32.0, 42.0]);
}

#[test]
fn scratch_beside_an_input_in_the_arena_does_not_touch_it() {
    let mut executor = consuming_executor();
    let (x, scratch) = executor.input_and_scratch::<f32>("x").expect("an input");
    x.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(scratch.len(), 128, "the larger part of 256 bytes beside 16 at 128");
    scratch.fill(0xa5);
    assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    executor.run().expect("all set");
    assert_eq!(values(&executor, 1), [12.0, 24.0, 36.0, 48.0]);
}

#[test]
fn a_single_call_runs_on_whatever_a_consumed_input_holds() {
    let mut executor = consuming_executor();
    executor.run_node(0).expect("the memory is there");
}

#[test]
fn a_parameter_cannot_be_consumed() {
    let mut executor = GraphExecutor::new(consuming_graph(), &kernels()).expect("all kernels");
    let params = [("x".to_owned(), row([1.0; 4]))];
    let refused = executor.load_params(params.into());
    assert!(matches!(refused, Err(ExecutorError::Consumed(name)) if name == "x"));
}
