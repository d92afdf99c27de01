"""LiteRT's interpreter (TFLite with XNNPACK) on a tensor from a file; one thread."""

import timing
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    """Runs and reports."""
    asked = timing.arguments()
    interpreter = Interpreter(model_path=str(asked.model), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    given = timing.tensor(asked)

    def infer() -> timing.Floats:
        interpreter.set_tensor(source, given)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    timing.run(asked, infer)


if __name__ == "__main__":
    main()
