// The waPC host and the messages: guests written by hand that misbehave in every way, and the real
// actor, whose answers are those of `graphlet classify`.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ImageClassifier, verify, WapcHost } from '../src/lib/index.ts';
import { pack, PackError, type Packed, unpack } from '../src/lib/msgpack.ts';
import {
  built,
  builtTrust,
  codeOf,
  CONSOLE_LOG,
  constant,
  ERROR,
  FOREIGN,
  guestModule,
  HOST_CALL,
  latin1,
  REQUEST,
  RESPONSE,
  SEVEN,
  TRUST,
} from './common.ts';

const call = (import_: number, ...numbers: number[]) => [...numbers.flatMap(constant), 0x10, import_];

/** A running guest of this code. */
async function guest(code: readonly number[], data = '', log?: (line: string) => void): Promise<WapcHost> {
  const module = await verify(guestModule(code, data), TRUST, { dangerouslyAllowUnsigned: true });
  return WapcHost.start(module, log ? { log } : {});
}
const hostCall = (namespace: string, operation: string, payload: string): [code: number[], data: string] => [
  [
    ...call(
      HOST_CALL,
      16,
      0,
      16,
      namespace.length,
      16 + namespace.length,
      operation.length,
      16 + namespace.length + operation.length,
      payload.length,
    ),
    0x1a,
  ],
  namespace + operation + payload,
];

test('a guest gets its message and gives its answer', async () => {
  // The message of 5 bytes is written to 1024, the operation to 2048, and both are the answer.
  const host = await guest([...call(REQUEST, 2048, 1024), ...call(RESPONSE, 1024, 5)]);
  assert.equal(Buffer.from((await host.send('Echo', latin1('hello'))).response).toString(), 'hello');
});

test('what does not lie in the memory, or is too long, ends the call and not the host', async () => {
  for (const [what, code, message] of [
    ['an answer outside', call(RESPONSE, 65_530, 7), /do not lie in the guest's memory/],
    ['an answer with a negative address', call(RESPONSE, -4, 4), /do not lie in the guest's memory/],
    ['an answer that is too long', call(RESPONSE, 0, (4 << 20) + 1), /the limit is 4194304/],
    ['a message outside', call(REQUEST, 0, 65_535), /do not lie/],
    ['a name that is too long', [...call(HOST_CALL, 0, 257, 0, 0, 0, 0, 0, 0), 0x1a], /the limit is 256/],
    ['a payload outside', [...call(HOST_CALL, 0, 0, 0, 0, 0, 0, 65_536, 1), 0x1a], /do not lie/],
    ['an error outside', call(ERROR, 65_536, 1), /do not lie/],
    ['a trap', [0x00], /unreachable/],
  ] as const) {
    const host = await guest([...code]);
    await assert.rejects(host.send('X', latin1('hello')), { code: 'trapped', message }, what);
    // A new instance, the same answer.
    await assert.rejects(host.send('X', latin1('hello')), { code: 'trapped' }, what);
  }
});

test('a guest that takes more memory than a host gives is stopped', async () => {
  // memory.grow by 8,200 pages: 513 MiB with the first.
  const host = await guest([...constant(8_200), 0x40, 0, 0x1a]);
  await assert.rejects(host.send('X', new Uint8Array()), { code: 'out_of_memory' });
});

test("phases are stamped by the host's clock, and marks that are none are refused", async () => {
  let now = 0;
  const [code, data] = hostCall('graphlet:phase', 'Mark', 'decode');
  const again = [...code, ...code];
  const module = await guest(again, data);
  assert.deepEqual(
    (await module.send('X', new Uint8Array())).phases.map((phase) => phase.name),
    ['decode', 'decode'],
  );
  Object.assign(module, { options: { now: () => (now += 5) } });
  const { phases, totalMs } = await module.send('X', new Uint8Array());
  assert.deepEqual([phases.map((phase) => phase.ms), totalMs], [[5, 5], 15]);
  for (const payload of ['Decode', '', 'x'.repeat(33)]) {
    const refused = await guest(...hostCall('graphlet:phase', 'Mark', payload));
    assert.deepEqual((await refused.send('X', new Uint8Array())).phases, []);
  }
  const many = await guest(Array<number[]>(20).fill(code).flat(), data);
  assert.equal((await many.send('X', new Uint8Array())).phases.length, 16);
});

test('a guest may log, 64 lines a call, and has no other capability', async () => {
  const lines: string[] = [];
  const log = (line: string) => lines.push(line);
  const [code, data] = hostCall(
    'wascc:logging',
    'WriteLog',
    Buffer.from(pack({ level: 3, body: 'told' })).toString('latin1'),
  );
  await (await guest(Array<number[]>(70).fill(code).flat(), data, log)).send('X', new Uint8Array());
  assert.deepEqual([lines.length, lines[0]], [64, 'told']);
  await (await guest(call(CONSOLE_LOG, 16, 4), 'here', log)).send('X', new Uint8Array());
  assert.equal(lines.at(-1), 'here');
  // The refusal is the call's 0, which the guest here gives as its answer.
  const [other, name] = hostCall('wascc:keyvalue', 'Get', '');
  const refused = await guest([...other.slice(0, -1), 0x0f], name);
  assert.equal(await codeOf(() => refused.send('X', new Uint8Array())), 'actor_error');
});

test('a module of another kind is refused before it runs', async () => {
  const plain = await verify(latin1('\0asm\x01\0\0\0'), TRUST, { dangerouslyAllowUnsigned: true });
  assert.equal(await codeOf(() => WapcHost.start(plain)), 'not_this_kind');
  const verified = await verify(FOREIGN, TRUST, { dangerouslyAllowUnsigned: true });
  await assert.rejects(WapcHost.start(verified), /it wants `steal` of `env`/);
});

test('messages are those of crates/wire', () => {
  const bytes = latin1('\x84\xa6method\xa3GET\xa4path\xa1/\xabqueryString\xa0\xa5extra\x92\x01\x81\xa1a\x02');
  assert.deepEqual(JSON.parse(JSON.stringify(unpack(bytes))), {
    method: 'GET',
    path: '/',
    queryString: '',
    extra: [1, { a: 2 }],
  });
  const message: Packed = {
    method: 'PUT',
    header: { accept: '*' },
    body: Uint8Array.of(0, 159, 255),
    n: 7,
    yes: true,
    none: null,
    list: ['ä'],
  };
  const packed = pack(message);
  assert.deepEqual(
    { ...(unpack(packed) as object) },
    { ...message, header: Object.assign(Object.create(null) as object, message['header']) },
  );
  for (let end = 0; end < packed.length; end += 1)
    assert.throws(() => unpack(packed.slice(0, end)), PackError, `cut at ${end}`);
  for (const wrong of [
    '\xc1',
    '\xc0\xc0',
    '\x81\x01\x01',
    `${'\x91'.repeat(100)}\xc0`,
    '\xc6\xff\xff\xff\xff',
    '\xdd\xff\xff\xff\xff',
    '\xa1\xff',
  ]) {
    assert.throws(() => unpack(latin1(wrong)), PackError, JSON.stringify(wrong));
  }
});

test('any byte of a message may be wrong without more than an error', () => {
  const packed = pack({ statusCode: 200, status: 'OK', header: { a: 'b' }, body: Uint8Array.of(1, 2) });
  for (let at = 0; at < packed.length; at += 1) {
    for (let value = 0; value < 256; value += 1) {
      const broken = packed.slice();
      broken[at] = value;
      try {
        unpack(broken);
      } catch (error) {
        assert.ok(error instanceof PackError, String(error));
      }
    }
  }
});

test('the signed actor names the seven, and says what is wrong with what is no picture', async (context) => {
  const bytes = built(context, 'digits/relaxed-simd.wasm');
  if (!bytes) return;
  const classifier = await ImageClassifier.load(await verify(bytes, builtTrust()));
  assert.deepEqual([classifier.card?.name, classifier.card?.labels], ['digits', 10]);
  const { classes, phases } = await classifier.classify(readFileSync(SEVEN));
  assert.equal(classes[0]?.label, '7');
  assert.equal(classes.length, 5);
  assert.deepEqual(
    phases.map((phase) => phase.name),
    ['decode', 'preprocess', 'infer'],
  );
  // More than there are.
  assert.equal((await classifier.classify(readFileSync(SEVEN), 100)).classes.length, 10);
  for (const [picture, code] of [
    [new Uint8Array(), 'no_image'],
    [latin1('hello'), 'not_an_image'],
    [readFileSync(SEVEN).subarray(0, 60), 'broken_image'],
    [new Uint8Array((16 << 20) + 1), 'image_too_large'],
  ] as const) {
    assert.equal(await codeOf(() => classifier.classify(picture)), code);
  }
  // And it goes on.
  assert.deepEqual((await classifier.classify(readFileSync(SEVEN))).classes, classes);
  const card = await classifier.request('GET', '/');
  const told = JSON.parse(Buffer.from(card.body).toString()) as { digest: string };
  assert.equal(told.digest, classifier.module.digest);
});
