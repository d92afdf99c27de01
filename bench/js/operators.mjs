// Operators on large tensors: operators.wasm, or (with `--library tfjs`) tfjs-backend-wasm, under
// the same V8. `--cases FILE` names what to compute; a line of JSON for each, with the result or, of a
// tensor, its hash.
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { realtime, report } from './timing.mjs';

const TYPES = {
  FP32: { array: Float32Array, code: 2, bits: 32, tfjs: 'float32' },
  INT32: { array: Int32Array, code: 0, bits: 32, tfjs: 'int32' },
  INT8: { array: Int8Array, code: 0, bits: 8 },
};
const OPERATORS = { Add: 0, Mul: 1, Argmax: 2, EqualCount: 3 };

const asked = {};
for (let i = 2; i + 1 < process.argv.length; i += 2) {
  asked[process.argv[i].replace(/^--/, '')] = process.argv[i + 1];
}
const cases = JSON.parse(readFileSync(asked.cases, 'utf8'));
const runs = Number(asked.runs);

function operand(name, type) {
  const bytes = readFileSync(path.join(path.dirname(asked.cases), `${name}.${type}`));
  return new TYPES[type].array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** The library's exports, called as docs/operators.md says. Operands stay where they are. */
async function ours() {
  const { instance } = await WebAssembly.instantiate(readFileSync(asked.module), {});
  const { memory, graphlet_alloc: allocate, graphlet_free: free, run } = instance.exports;
  const request = allocate(256) >>> 0;
  return (operator, type, operands) => {
    const { code, bits } = TYPES[type];
    const places = operands.map((data) => {
      const address = allocate(data.byteLength) >>> 0;
      if (address === 0) throw new Error('no memory for an operand');
      new Uint8Array(memory.buffer, address, data.byteLength).set(
        new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      );
      return [address, data];
    });
    const length = 8 + 24 * operands.length;
    const describe = () => {
      const view = new DataView(memory.buffer, request, length);
      [0x47, 0x4c, 0x54, 0x44].forEach((byte, i) => view.setUint8(i, byte));
      view.setUint16(4, 1, true);
      view.setUint16(6, operands.length, true);
      places.forEach(([address, data], i) => {
        const at = 8 + 24 * i;
        view.setUint8(at, code);
        view.setUint8(at + 1, bits);
        view.setUint16(at + 2, 1, true);
        view.setUint32(at + 4, 1, true);
        view.setUint32(at + 8, address, true);
        view.setUint32(at + 12, data.byteLength, true);
        view.setBigUint64(at + 16, BigInt(data.length), true);
      });
    };
    return {
      // The answer's descriptor takes the request's place: it is written anew each time.
      call() {
        describe();
        const answer = run(OPERATORS[operator], request, length);
        if (answer < 0) throw new Error(`operators.wasm answers ${answer}`);
      },
      output() {
        const view = new DataView(memory.buffer, request);
        const bytes = new Uint8Array(memory.buffer, view.getUint32(16, true), view.getUint32(20, true));
        if (operator === 'Argmax' || operator === 'EqualCount') {
          return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true));
        }
        return bytes;
      },
      end: () => places.forEach(([address]) => free(address)),
    };
  };
}

async function tfjs() {
  const require = createRequire(import.meta.url);
  const tf = require('@tensorflow/tfjs-core');
  const wasm = require('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}/`);
  tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  await tf.setBackend('wasm');
  await tf.ready();
  return (operator, type, operands) => {
    if (TYPES[type].tfjs === undefined) return null;
    const [a, b] = operands.map((data) => tf.tensor1d(data, TYPES[type].tfjs));
    const compute = {
      Add: () => tf.add(a, b),
      Mul: () => tf.mul(a, b),
      Argmax: () => tf.argMax(a),
      EqualCount: () => tf.sum(tf.cast(tf.equal(a, b), 'int32')),
    }[operator];
    let last = null;
    return {
      call() {
        last?.dispose();
        last = tf.tidy(compute);
      },
      output() {
        const data = last.dataSync();
        if (operator === 'Argmax' || operator === 'EqualCount') return data[0];
        return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      },
      end: () => tf.dispose([a, b, last].filter(Boolean)),
    };
  };
}

const library = await (asked.library === 'tfjs' ? tfjs() : ours());
for (const { operator, type, operands } of cases) {
  const prepared = library(operator, type, operands.map((name) => operand(name, type)));
  if (prepared === null) {
    report({ operator, type, reason: 'it has no such type' });
    continue;
  }
  // V8 compiles a second time while the first code runs.
  const until = performance.now() + 500;
  do prepared.call(); while (performance.now() < until);
  realtime(asked, true);
  const ms = [];
  for (let i = 0; i < runs; i += 1) {
    const begun = performance.now();
    prepared.call();
    ms.push(Number((performance.now() - begun).toFixed(4)));
  }
  realtime(asked, false);
  const output = prepared.output();
  const told = typeof output === 'number' ? output : createHash('sha256').update(output).digest('hex');
  report({ operator, type, ms, output: told });
  prepared.end();
}
