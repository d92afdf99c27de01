// A graphlet module in node: a small waPC host that hands it a picture, as `graphlet classify`
// does. The module is the very file that `graphlet run` serves; V8 compiles it instead of
// wasmtime's Cranelift. Its phases are stamped here, as our own host does.
//
//   node wapc.mjs --model MODULE.wasm --input PICTURE --runs N --warmup N --output FILE --name NAME
import { readFileSync, writeFileSync } from 'node:fs';
import { best, options, realtime, relaxedSimd, report } from './timing.mjs';
import { warm } from './warm.mjs';

const text = new TextEncoder();
const decoder = new TextDecoder();

/** MessagePack, as much of it as waSCC's requests need. */
function pack(value) {
  const word = (n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
  if (value instanceof Uint8Array) return Buffer.concat([Buffer.from([0xc6, ...word(value.length)]), value]);
  if (typeof value === 'string') {
    const bytes = text.encode(value);
    return Buffer.concat([Buffer.from([0xdb, ...word(bytes.length)]), bytes]);
  }
  const parts = [Buffer.from([0xdf, ...word(Object.keys(value).length)])];
  for (const [key, entry] of Object.entries(value)) parts.push(pack(key), pack(entry));
  return Buffer.concat(parts);
}

/** The answer's reader: maps, strings, byte strings and whole numbers. */
function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (length) => { at += length; return bytes.subarray(at - length, at); };
  const number = (width) => {
    const found = { 1: () => view.getUint8(at), 2: () => view.getUint16(at), 4: () => view.getUint32(at) }[width]();
    at += width;
    return found;
  };
  const map = (length) => {
    const found = {};
    for (let i = 0; i < length; i += 1) {
      const key = value();
      found[key] = value();
    }
    return found;
  };
  function value() {
    const tag = number(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 15);
    if (tag >= 0xa0 && tag < 0xc0) return decoder.decode(take(tag & 31));
    switch (tag) {
      case 0xc4: return take(number(1));
      case 0xc5: return take(number(2));
      case 0xc6: return take(number(4));
      case 0xcc: return number(1);
      case 0xcd: return number(2);
      case 0xce: return number(4);
      case 0xd9: return decoder.decode(take(number(1)));
      case 0xda: return decoder.decode(take(number(2)));
      case 0xdb: return decoder.decode(take(number(4)));
      case 0xde: return map(number(2));
      case 0xdf: return map(number(4));
      default: throw new Error(`MessagePack tag ${tag} is not expected here`);
    }
  }
  return value();
}

/** One instance of a waPC guest. */
class Guest {
  constructor(module) {
    const memory = () => new Uint8Array(this.instance.exports.memory.buffer);
    const write = (pointer, bytes) => memory().set(bytes, pointer);
    const read = (pointer, length) => memory().slice(pointer, pointer + length);
    const string = (pointer, length) => decoder.decode(read(pointer, length));
    const refusal = text.encode('this host has no capabilities');
    this.instance = new WebAssembly.Instance(module, {
      wapc: {
        __guest_request: (operation, message) => {
          write(operation, this.operation);
          write(message, this.message);
        },
        __guest_response: (pointer, length) => { this.response = read(pointer, length); },
        __guest_error: (pointer, length) => { this.error = string(pointer, length); },
        __host_call: (binding, bindingLength, namespace, namespaceLength, operation, operationLength, payload, length) => {
          if (string(namespace, namespaceLength) !== 'graphlet:phase') return 0;
          this.marks.push([string(payload, length), performance.now()]);
          return 1;
        },
        __host_response_len: () => 0,
        __host_response: () => {},
        __host_error_len: () => refusal.length,
        __host_error: (pointer) => write(pointer, refusal),
        __console_log: (pointer, length) => process.stderr.write(`${string(pointer, length)}\n`),
      },
    });
  }

  /** The answer, and the milliseconds of each phase. */
  call(operation, message) {
    [this.operation, this.message] = [text.encode(operation), pack(message)];
    [this.response, this.error, this.marks] = [undefined, 'the guest failed without a reason', []];
    const begun = performance.now();
    const done = this.instance.exports.__guest_call(this.operation.length, this.message.length);
    const total = performance.now() - begun;
    if (done !== 1 || !this.response) throw new Error(this.error);
    const phases = { total };
    this.marks.slice(0, -1).forEach(([name, start], i) => { phases[name] = this.marks[i + 1][1] - start; });
    return [unpack(this.response), phases];
  }
}

const asked = options();
const module = new WebAssembly.Module(readFileSync(asked.model));
const guest = new Guest(module);
const picture = readFileSync(asked.input);
const send = (path, body) => {
  const [answer, phases] = guest.call('HandleRequest', {
    method: 'POST', path, queryString: 'top_k=1', header: {}, body,
  });
  const shown = decoder.decode(answer.body);
  if (answer.statusCode !== 200) throw new Error(`the module answers ${answer.statusCode}: ${shown}`);
  return [JSON.parse(shown), phases];
};
const [[found]] = send('/', picture);
report({ event: 'first', label: found.label, relaxed: relaxedSimd() });
await warm(asked.warmup, () => send('/', picture));
realtime(asked, true);
const ms = [];
for (let i = 0; i < asked.runs; i += 1) ms.push(Number(send('/', picture)[1].infer.toFixed(4)));
realtime(asked, false);
// The whole output, for comparison.
const [scores] = send(`/v2/models/${asked.name}/infer`, text.encode(JSON.stringify({
  inputs: [{ name: 'image', datatype: 'BYTES', shape: [1], data: [picture.toString('base64')] }],
  outputs: [{ name: 'scores' }],
})));
const output = new Float32Array(scores.outputs[0].data);
writeFileSync(asked.output, Buffer.from(output.buffer));
report({ event: 'done', ms, label: best(output) });
