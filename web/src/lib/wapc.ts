// A waPC host: hands a guest its message, takes its answer, and answers its host calls. What the
// guest says about its memory is checked here, with the limits of crates/host (limits.rs).

import { GraphletError, sentence } from './errors.ts';
import { unpack } from './msgpack.ts';
import { compile } from './simd.ts';
import type { VerifiedModule } from './verify.ts';

/** What part of a call took how long. */
export interface Phase {
  /** `decode`, `preprocess`, `infer`: as the guest marks them. */
  readonly name: string;
  readonly ms: number;
}

/** What a guest answered. */
export interface Reply {
  readonly response: Uint8Array<ArrayBuffer>;
  readonly phases: readonly Phase[];
  /** From handing the message over to having the answer. */
  readonly totalMs: number;
}

/** Settings of a host. */
export interface HostOptions {
  /** Told each line that the guest logs. */
  readonly log?: (line: string) => void;
  /** The clock, in milliseconds. */
  readonly now?: () => number;
}

/** Limits of what a guest may take; in bytes unless they say otherwise. */
export const LIMITS = {
  memory: 512 << 20,
  request: (16 << 20) + (256 << 10),
  response: 4 << 20,
  hostCall: 256 << 10,
  name: 256,
  error: 4 << 10,
  logLine: 4 << 10,
  logLines: 64,
  phases: 16,
} as const;

const LOGGING = 'wascc:logging';
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const NOTHING = new Uint8Array();

/** One instance of a waPC guest. After a trap the next call gets a new one. */
export class WapcHost {
  private instance: WebAssembly.Instance | undefined;
  private call = newCall('', NOTHING);

  private constructor(
    private readonly compiled: WebAssembly.Module,
    private readonly capabilities: readonly string[],
    private readonly options: HostOptions,
  ) {}

  /** Compiles a module and starts it. */
  static async start(module: VerifiedModule, options: HostOptions = {}): Promise<WapcHost> {
    const compiled = await compile(module);
    const foreign = WebAssembly.Module.imports(compiled).find((wanted) => wanted.module !== 'wapc');
    if (foreign) {
      throw new GraphletError('not_this_kind', `this is no actor: it wants \`${foreign.name}\` of \`${foreign.module}\``);
    }
    const exported = WebAssembly.Module.exports(compiled);
    const has = (name: string, kind: string) => exported.some((entry) => entry.name === name && entry.kind === kind);
    if (!has('__guest_call', 'function') || !has('memory', 'memory')) {
      throw new GraphletError('not_this_kind', 'this is no actor: it has no `__guest_call`');
    }
    const host = new WapcHost(compiled, module.claims?.capabilities ?? [LOGGING], options);
    host.instance = await host.instantiate();
    return host;
  }

  /** Sends a message; throws the guest's own error, or `trapped`. */
  async send(operation: string, message: Uint8Array): Promise<Reply> {
    if (message.length > LIMITS.request) {
      throw new GraphletError('image_too_large', `the message has ${message.length} bytes, the limit is ${LIMITS.request}`);
    }
    this.instance ??= await this.instantiate();
    const guest = this.instance.exports['__guest_call'] as (operation: number, message: number) => unknown;
    const call = newCall(operation, message);
    this.call = call;
    const now = this.options.now ?? (() => performance.now());
    const begun = now();
    let done: unknown;
    try {
      done = guest(call.operation.length, message.length);
      this.checkMemory();
    } catch (error) {
      // A guest that was stopped in the middle has no state to go on with.
      this.instance = undefined;
      if (error instanceof GraphletError) throw error;
      throw new GraphletError('trapped', `the module failed: ${sentence(error)}`, { cause: error });
    }
    const end = now();
    if (done !== 1) {
      throw new GraphletError('actor_error', call.error ?? 'the module failed without a reason');
    }
    const phases = call.marks.map(([name, start], index) => ({ name, ms: (call.marks[index + 1]?.[1] ?? end) - start }));
    return {
      response: call.response ?? new Uint8Array(),
      phases: phases.filter((phase) => phase.name !== 'done'),
      totalMs: end - begun,
    };
  }

  private async instantiate(): Promise<WebAssembly.Instance> {
    try {
      return await WebAssembly.instantiate(this.compiled, { wapc: this.imports() });
    } catch (error) {
      const memory = error instanceof RangeError;
      throw new GraphletError(
        memory ? 'out_of_memory' : 'not_this_kind',
        memory ? 'this browser has no memory left for the module' : `the module does not start: ${sentence(error)}`,
        { cause: error },
      );
    }
  }

  private imports(): Record<string, WebAssembly.ExportValue> {
    return {
      __guest_request: (operation: number, message: number) => {
        this.write('__guest_request', operation, this.call.operation);
        this.write('__guest_request', message, this.call.message);
      },
      __guest_response: (pointer: number, length: number) => {
        this.call.response = this.read('__guest_response', pointer, length, LIMITS.response).slice();
      },
      __guest_error: (pointer: number, length: number) => {
        this.call.error = this.text('__guest_error', pointer, length, LIMITS.error);
      },
      __host_call: (...numbers: number[]) => this.hostCall(numbers),
      __host_response_len: () => this.call.hostResponse.length,
      __host_response: (pointer: number) => this.write('__host_response', pointer, this.call.hostResponse),
      __host_error_len: () => this.call.hostError.length,
      __host_error: (pointer: number) => this.write('__host_error', pointer, this.call.hostError),
      __console_log: (pointer: number, length: number) => {
        const line = this.text('__console_log', pointer, length, LIMITS.logLine);
        if (this.mayLog()) this.options.log?.(line);
      },
    };
  }

  /** Binding, namespace, operation and payload, each as pointer and length. */
  private hostCall(numbers: readonly number[]): number {
    const at = (this.options.now ?? (() => performance.now()))();
    const part = (index: number, limit: number) =>
      this.read('__host_call', numbers[2 * index] ?? 0, numbers[2 * index + 1] ?? 0, limit);
    const [, namespace, operation] = [0, 1, 2].map((index) => decoder.decode(part(index, LIMITS.name)));
    const payload = part(3, LIMITS.hostCall);
    const { call } = this;
    [call.hostResponse, call.hostError] = [NOTHING, NOTHING];
    try {
      if (namespace === 'graphlet:phase' && operation === 'Mark') {
        this.mark(decoder.decode(payload), at);
      } else if (namespace === LOGGING && operation === 'WriteLog' && this.capabilities.includes(LOGGING)) {
        this.writeLog(payload);
      } else {
        throw new Error(`this host has no \`${namespace}\` with the operation \`${operation}\``);
      }
      return 1;
    } catch (error) {
      call.hostError = encoder.encode(sentence(error));
      return 0;
    }
  }

  private mark(name: string, at: number): void {
    if (!/^[a-z0-9_]{1,32}$/.test(name)) throw new Error("a phase's name is 1 to 32 of `a-z`, `0-9` and `_`");
    if (this.call.marks.length === LIMITS.phases) throw new Error(`more than ${LIMITS.phases} phases in one call`);
    this.call.marks.push([name, at]);
  }

  private writeLog(payload: Uint8Array): void {
    const line = unpack(payload);
    const body = line && typeof line === 'object' && 'body' in line ? line['body'] : undefined;
    if (typeof body !== 'string') throw new Error('malformed message');
    if (!this.mayLog()) throw new Error('too many lines logged in one call');
    this.options.log?.(body.slice(0, LIMITS.logLine));
  }

  private mayLog(): boolean {
    this.call.logLines += 1;
    return this.call.logLines <= LIMITS.logLines;
  }

  private memory(): Uint8Array<ArrayBuffer> {
    const memory = this.instance?.exports['memory'] as WebAssembly.Memory;
    return new Uint8Array(memory.buffer);
  }

  private checkMemory(): void {
    const bytes = this.memory().length;
    if (bytes > LIMITS.memory) {
      throw new GraphletError('out_of_memory', `the module took ${bytes >> 20} MiB of memory, the limit is ${LIMITS.memory >> 20} MiB`);
    }
  }

  /** The guest's bytes; pointers and lengths arrive as signed numbers. */
  private read(what: string, pointer: number, length: number, limit: number): Uint8Array<ArrayBuffer> {
    const [begin, bytes] = [pointer >>> 0, length >>> 0];
    if (bytes > limit) throw new GraphletError('trapped', `${what}: ${bytes} bytes, the limit is ${limit}`);
    const memory = this.memory();
    if (begin + bytes > memory.length) throw outside(what, begin, bytes);
    return memory.subarray(begin, begin + bytes);
  }

  private text(what: string, pointer: number, length: number, limit: number): string {
    return decoder.decode(this.read(what, pointer, Math.min(length >>> 0, limit), limit));
  }

  private write(what: string, pointer: number, bytes: Uint8Array): void {
    const memory = this.memory();
    const begin = pointer >>> 0;
    if (begin + bytes.length > memory.length) throw outside(what, begin, bytes.length);
    memory.set(bytes, begin);
  }
}

/** One call of a guest, from both sides. */
interface Call {
  readonly operation: Uint8Array;
  readonly message: Uint8Array;
  readonly marks: [name: string, at: number][];
  response: Uint8Array<ArrayBuffer> | undefined;
  error: string | undefined;
  hostResponse: Uint8Array;
  hostError: Uint8Array;
  logLines: number;
}

function newCall(operation: string, message: Uint8Array): Call {
  return {
    operation: encoder.encode(operation),
    message,
    marks: [],
    response: undefined,
    error: undefined,
    hostResponse: NOTHING,
    hostError: NOTHING,
    logLines: 0,
  };
}

function outside(what: string, pointer: number, bytes: number): GraphletError {
  const at = `0x${pointer.toString(16)}`;
  return new GraphletError('trapped', `${what}: ${bytes} bytes at ${at} do not lie in the guest's memory`);
}
