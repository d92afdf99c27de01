// An instance of a WASM graph or of the operator library: buffers in its memory, and the calls of
// its exports. Nothing that it gives is believed.

import { GraphletError, sentence } from './errors.ts';
import { compile } from './simd.ts';
import { bytesOf, byteCount, readDescriptor, type Tensor, tensorOf, writeDescriptor } from './tensor.ts';
import type { VerifiedModule } from './verify.ts';

type Export = (...numbers: number[]) => number;

// A description of 65,535 tensors with long names has less.
const MAX_TEXT_BYTES = 16 << 20;
// Every module of this kind exports these.
const EXPORTS = ['run', 'graphlet_alloc', 'graphlet_free', 'graphlet_message'] as const;

/** The exports and the memory of one instance. */
export class TensorGuest {
  // Buffers of the inputs, by their place in the list, kept from call to call.
  private readonly buffers: ({ address: number; bytes: number } | undefined)[] = [];
  private descriptor: { address: number; bytes: number } | undefined;
  private broken = false;

  private constructor(private readonly instance: WebAssembly.Instance) {}

  /** Compiles a module and starts it; `more` are exports that this kind of module has besides. */
  static async start(module: VerifiedModule, what: string, more: readonly string[] = []): Promise<TensorGuest> {
    const compiled = await compile(module);
    const [foreign] = WebAssembly.Module.imports(compiled);
    if (foreign) {
      throw new GraphletError('not_this_kind', `this is ${what === 'graph' ? 'no WASM graph' : 'no operator library'}: it imports \`${foreign.name}\``);
    }
    const exported = new Map(WebAssembly.Module.exports(compiled).map(({ name, kind }) => [name, kind]));
    const missing = [...EXPORTS, ...more].find((name) => exported.get(name) !== 'function');
    if (missing !== undefined || exported.get('memory') !== 'memory') {
      throw new GraphletError('not_this_kind', `this is ${what === 'graph' ? 'no WASM graph' : 'no operator library'}: it has no \`${missing ?? 'memory'}\``);
    }
    try {
      return new TensorGuest(await WebAssembly.instantiate(compiled, {}));
    } catch (error) {
      throw new GraphletError('out_of_memory', `the module does not start: ${sentence(error)}`, { cause: error });
    }
  }

  /**
   * Runs the module on tensors; `leading` are arguments of `run` before address and length, `room`
   * is how long the result's descriptor may be. The results are copies.
   */
  run(inputs: readonly Tensor[], room: number, leading: readonly number[] = []): Tensor[] {
    const places = inputs.map((input, index) => {
      const bytes = bytesOf(input.data);
      const address = this.buffer(index, bytes.length);
      this.view(address, bytes.length).set(bytes);
      return { dtype: input.dtype, shape: input.shape, address };
    });
    const request = writeDescriptor(places);
    const bytes = Math.max(request.length, room);
    if (!this.descriptor || this.descriptor.bytes < bytes) {
      if (this.descriptor) this.call('graphlet_free', this.descriptor.address);
      this.descriptor = { address: this.allocate(bytes), bytes };
    }
    const { address } = this.descriptor;
    this.view(address, request.length).set(request);
    const length = this.call('run', ...leading, address, request.length);
    if (length < 0) throw new GraphletError('refused', this.message(length));
    if (length > bytes) throw new GraphletError('bad_answer', 'the module gave a result that is longer than its buffer');
    const results = readDescriptor(this.view(address, length).slice());
    return results.map((result) => {
      const data = this.view(result.address, byteCount(result.dtype, result.shape));
      return tensorOf(result.dtype, result.shape, data);
    });
  }

  /** The text that an export writes, or the negative number that it answers with. */
  text(name: string): string | number {
    const length = this.call(name, 0, 0);
    if (length < 0) return length;
    if (length > MAX_TEXT_BYTES) throw new GraphletError('bad_answer', 'the module gave a text without end');
    const address = this.allocate(length);
    const again = this.call(name, address, length);
    if (again !== length) throw new GraphletError('bad_answer', 'the module gave another text when asked again');
    const text = new TextDecoder().decode(this.view(address, length).slice());
    this.call('graphlet_free', address);
    return text;
  }

  /** Bytes of the module's memory as it stands. */
  get memoryBytes(): number {
    return this.memory().length;
  }

  /** What a negative code stands for, in the module's own words if it has any. */
  private message(code: number): string {
    const text = this.text('graphlet_message');
    return typeof text === 'string' && text !== '' ? text.replace(/\p{Cc}/gu, ' ') : `the module refused (${code})`;
  }

  private buffer(index: number, bytes: number): number {
    const found = this.buffers[index];
    if (found && found.bytes >= bytes) return found.address;
    this.buffers[index] = undefined;
    if (found) this.call('graphlet_free', found.address);
    const address = this.allocate(bytes);
    this.buffers[index] = { address, bytes };
    return address;
  }

  private allocate(bytes: number): number {
    const address = bytes < 2 ** 32 ? this.call('graphlet_alloc', bytes) >>> 0 : 0;
    if (address === 0) throw new GraphletError('out_of_memory', `the module has no memory for ${bytes} bytes`);
    return address;
  }

  private call(name: string, ...numbers: number[]): number {
    if (this.broken) throw new GraphletError('trapped', 'the module failed before and is of no more use: load it again');
    try {
      return (this.instance.exports[name] as Export)(...numbers);
    } catch (error) {
      this.broken = true;
      throw new GraphletError('trapped', `the module failed: ${sentence(error)}`, { cause: error });
    }
  }

  private memory(): Uint8Array<ArrayBuffer> {
    return new Uint8Array((this.instance.exports['memory'] as WebAssembly.Memory).buffer);
  }

  /** Bytes of the module's memory, until it grows. */
  private view(address: number, bytes: number): Uint8Array<ArrayBuffer> {
    const memory = this.memory();
    if (address + bytes > memory.length) {
      throw new GraphletError('bad_answer', 'the module gave an address outside of its memory');
    }
    return memory.subarray(address, address + bytes);
  }
}
