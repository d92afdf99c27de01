"""onnxruntime on a tensor from a file; one thread."""

import onnxruntime
import timing


def main() -> None:
    """Runs and reports."""
    asked = timing.arguments()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(asked.model), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    given = timing.tensor(asked)
    timing.run(asked, lambda: session.run(None, {name: given})[0])


if __name__ == "__main__":
    main()
