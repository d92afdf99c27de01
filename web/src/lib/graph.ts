// A WASM graph (docs/wasm-graph.md): a model as one module, tensors in and tensors out.

import { GraphletError } from './errors.ts';
import { TensorGuest } from './guest.ts';
import { type DType, descriptorBytes, isDType, isShape, showShape, type Tensor } from './tensor.ts';
import type { VerifiedModule } from './verify.ts';

/** One input or output of a graph. */
export interface TensorInfo {
  /** Its name in the ONNX file. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** What a graph says about itself. */
export interface Description {
  readonly name: string;
  readonly version: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** `model.toml` as JSON, when the graph was built of one. */
  readonly spec: unknown;
  /** Names of the classes, when it was. */
  readonly labels: readonly string[];
}

const ABI = 1;

/** A loaded graph, in this thread. */
export class WasmGraph {
  private constructor(
    private readonly guest: TensorGuest,
    /** What the graph says about itself. */
    readonly description: Description,
  ) {}

  /** Compiles a graph and starts it. */
  static async load(module: VerifiedModule): Promise<WasmGraph> {
    const guest = await TensorGuest.start(module, 'graph', ['graphlet_describe']);
    return new WasmGraph(guest, readDescription(guest.text('graphlet_describe')));
  }

  /**
   * Computes the outputs, in the order of the description. Inputs are a list in that order, or an
   * object by name; throws `bad_tensor` when they are not those that the graph reads.
   */
  run(inputs: readonly Tensor[] | Readonly<Record<string, Tensor>>): Tensor[] {
    const { inputs: wanted, outputs } = this.description;
    const given = Array.isArray(inputs) ? (inputs as readonly Tensor[]) : this.inOrder(inputs as Record<string, Tensor>);
    if (given.length !== wanted.length) {
      throw new GraphletError('bad_tensor', `the graph reads ${wanted.length} tensors, not ${given.length}`);
    }
    for (const [index, { name, dtype, shape }] of wanted.entries()) {
      const input = given[index];
      if (input && (input.dtype !== dtype || showShape(input.shape) !== showShape(shape))) {
        throw new GraphletError(
          'bad_tensor',
          `the input \`${name}\` is ${dtype} ${showShape(shape)}, not ${input.dtype} ${showShape(input.shape)}`,
        );
      }
    }
    return this.guest.run(given, descriptorBytes(outputs.map((output) => output.shape.length)));
  }

  /** Bytes of the graph's memory as it stands. */
  get memoryBytes(): number {
    return this.guest.memoryBytes;
  }

  private inOrder(inputs: Record<string, Tensor>): Tensor[] {
    const { inputs: wanted } = this.description;
    const unknown = Object.keys(inputs).find((name) => !wanted.some((input) => input.name === name));
    if (unknown !== undefined) throw new GraphletError('bad_tensor', `the graph has no input \`${unknown}\``);
    return wanted.map(({ name }) => {
      const input = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
      if (!input) throw new GraphletError('bad_tensor', `the input \`${name}\` is missing`);
      return input;
    });
  }
}

function readDescription(text: string | number): Description {
  type Written = Partial<Record<'abi' | 'model' | 'inputs' | 'outputs' | 'spec' | 'labels', unknown>>;
  const wrong = (why: string) => new GraphletError('bad_answer', `the graph's description: ${why}`);
  let written: Written | null;
  try {
    written = JSON.parse(String(text)) as Written | null;
  } catch {
    throw wrong('not JSON');
  }
  if (written?.abi !== ABI) throw wrong(`it speaks version ${String(written?.abi)}, not ${ABI}`);
  const tensors = (list: unknown): TensorInfo[] => {
    if (!Array.isArray(list)) throw wrong('no list of tensors');
    return list.map((entry: Partial<TensorInfo> | null) => {
      const { name, dtype, shape } = entry ?? {};
      if (typeof name !== 'string' || !isDType(dtype) || !isShape(shape)) throw wrong('a tensor that is none');
      return { name, dtype, shape };
    });
  };
  const model = (written.model ?? {}) as { name?: unknown; version?: unknown };
  const labels = Array.isArray(written.labels) ? written.labels : [];
  return {
    name: typeof model.name === 'string' ? model.name : '',
    version: typeof model.version === 'string' ? model.version : '',
    inputs: tensors(written.inputs),
    outputs: tensors(written.outputs),
    spec: written.spec,
    labels: labels.filter((label): label is string => typeof label === 'string'),
  };
}
