// WASM graphs and the operator library as the project builds them, in this engine.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import {
  DATA_TYPES,
  GraphletError,
  type DataType,
  ImageClassifier,
  operands,
  type Operator,
  OperatorLibrary,
  pickVariant,
  readTensors,
  simdLevel,
  tensor,
  verify,
  WasmGraph,
  writeTensor,
} from '../src/lib/index.ts';
import { RELAXED_PROBE, SIMD128_PROBE } from '../src/lib/simd.ts';
import { built, builtTrust, codeOf, web } from './common.ts';

// Each with what `wasm-frontend` prints.
const CASES: [Operator, DataType, input: string, output: string][] = [
  [
    'Add',
    'FP32',
    '[{"input-data": [1, 2, 3, 4], "dim-size": 2, "shape": [2, 2]}, {"input-data": [3, 4, 5, 6], "dim-size": 2, "shape": [2, 2]}]',
    '{"input-data": [4, 6, 8, 10], "dim-size": 2, "shape": [2, 2]}',
  ],
  [
    'Add',
    'INT8',
    '[{"input-data": [127], "dim-size": 1, "shape": [1]}, {"input-data": [1, 2], "dim-size": 1, "shape": [2]}]',
    '{"input-data": [-128, -127], "dim-size": 1, "shape": [2]}',
  ],
  [
    'Mul',
    'FP32',
    '[{"input-data": [0.1, 1e38, "NaN"], "dim-size": 1, "shape": [3]}, {"input-data": [10], "dim-size": 0, "shape": []}]',
    '{"input-data": [1, "Infinity", "NaN"], "dim-size": 1, "shape": [3]}',
  ],
  [
    'Mul',
    'INT32',
    '[{"input-data": [], "dim-size": 2, "shape": [0, 3]}, {"input-data": [1, 2, 3], "dim-size": 1, "shape": [3]}]',
    '{"input-data": [], "dim-size": 2, "shape": [0, 3]}',
  ],
  [
    'Argmax',
    'FP32',
    '[{"input-data": [1, 9, 3, 4, 5, 6], "dim-size": 2, "shape": [2, 3], "axis": -1}]',
    '{"input-data": [1, 2], "dim-size": 1, "shape": [2]}',
  ],
  [
    'Argmax',
    'INT8',
    '[{"input-data": [1, 9, 3, 4, 5, 6], "dim-size": 2, "shape": [2, 3]}]',
    '{"input-data": [1], "dim-size": 0, "shape": []}',
  ],
  [
    'EqualCount',
    'FP32',
    '[{"input-data": [1, "NaN"], "dim-size": 1, "shape": [2]}, {"input-data": [1, "NaN"], "dim-size": 1, "shape": [2]}]',
    '{"input-data": [1], "dim-size": 0, "shape": []}',
  ],
];

// What wasm-frontend answers with exit code 2.
const MISTAKES: [Operator, DataType, input: string][] = [
  ['Add', 'FP32', '{}'],
  ['Add', 'FP32', '[1, 2'],
  ['Add', 'FP32', '[{"input-data": [1], "dim-size": 2, "shape": [1]}]'],
  ['Add', 'FP32', '[{"input-data": [1, 2], "dim-size": 1, "shape": [3]}]'],
  ['Add', 'FP32', '[{"input-data": [1e39], "dim-size": 1, "shape": [1]}]'],
  ['Add', 'FP32', '[{"input-data": [1], "dim-size": 1, "shape": [1]}]'],
  ['Add', 'INT8', '[{"input-data": [-129], "dim-size": 1, "shape": [1]}]'],
  ['Add', 'INT32', '[{"input-data": [1.0], "dim-size": 1, "shape": [1]}]'],
  ['Add', 'INT32', '[{"input-data": [-0], "dim-size": 1, "shape": [1]}]'],
  ['Argmax', 'INT8', '[{"input-data": [1], "dim-size": 1, "shape": [1], "axis": 1}]'],
  ['Argmax', 'INT8', '[{"input-data": [], "dim-size": 1, "shape": [0]}]'],
  ['Argmax', 'INT8', '[{"input-data": [1], "dim-size": 1, "shape": [1], "axes": 0}]'],
];

/** What wasm-frontend makes of it; undefined where it is not built. */
function frontend(
  operator: Operator,
  type: DataType,
  input: string,
): { status: number | null; stdout: string } | undefined {
  const command = process.env['WASM_FRONTEND'];
  if (command === undefined) return undefined;
  const library = path.join(web, 'public', 'models', 'operators', 'simd128.wasm');
  return spawnSync(command, ['-c', library, '-o', operator, '-d', type, '-I', input], { encoding: 'utf8' });
}

test('the operator library computes what wasm-frontend prints, and refuses what it refuses', async (context) => {
  const bytes = built(context, 'operators/simd128.wasm');
  if (!bytes) return;
  const library = await OperatorLibrary.load(await verify(bytes, builtTrust()));
  const compute = (operator: Operator, type: DataType, input: string) =>
    writeTensor(library.run(operator, operands(readTensors(input, DATA_TYPES[type], type))));
  for (const [operator, type, input, output] of CASES) {
    assert.equal(compute(operator, type, input), output, `${operator} ${type} ${input}`);
    const printed = frontend(operator, type, input);
    if (printed) assert.deepEqual(JSON.parse(printed.stdout), JSON.parse(output), input);
  }
  for (const [operator, type, input] of MISTAKES) {
    assert.throws(() => compute(operator, type, input), GraphletError, input);
    assert.equal(frontend(operator, type, input)?.status ?? 2, 2, input);
  }
});

test('the library refuses in its own words, and goes on', async (context) => {
  const bytes = built(context, 'operators/simd128.wasm');
  if (!bytes) return;
  const library = await OperatorLibrary.load(await verify(bytes, builtTrust()));
  const two = tensor('float32', [2], Float32Array.of(1, 2));
  for (const [operator, inputs] of [
    ['Add', [two]],
    ['Add', [two, tensor('float32', [3], new Float32Array(3))]],
    ['Add', [two, tensor('int8', [2], new Int8Array(2))]],
    ['Add', [two, two, two]],
    ['Argmax', [tensor('float32', [0], new Float32Array())]],
    ['Argmax', [two, tensor('int64', [], BigInt64Array.of(7n))]],
    ['Divide' as Operator, [two, two]],
  ] as const) {
    assert.throws(
      () => library.run(operator, inputs),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'refused', error.message);
        return error.message.length > 10;
      },
    );
  }
  assert.deepEqual([...library.run('Add', [two, two]).data], [2, 4]);
});

test('large tensors cross whole, and equal sizes take no more memory', async (context) => {
  const bytes = built(context, 'operators/simd128.wasm');
  if (!bytes) return;
  const library = await OperatorLibrary.load(await verify(bytes, builtTrust()));
  const count = 1 << 20;
  const input = tensor(
    'int32',
    [count],
    Int32Array.from({ length: count }, (_, index) => index),
  );
  for (let round = 0; round < 20; round += 1) {
    const { data } = library.run('Add', [input, input]);
    assert.equal(data[count - 1], 2 * (count - 1));
  }
});

test('a graph of the digits gives what the actor gives for the same tensor', async (context) => {
  const [bytes, actorBytes] = [
    built(context, 'digits-graph/relaxed-simd.wasm'),
    built(context, 'digits/relaxed-simd.wasm'),
  ];
  if (!bytes || !actorBytes) return;
  const graph = await WasmGraph.load(await verify(bytes, builtTrust()));
  const { inputs, outputs, labels } = graph.description;
  assert.deepEqual(inputs, [{ name: 'image', dtype: 'float32', shape: [1, 1, 32, 32] }]);
  assert.deepEqual([outputs[0]?.shape, labels.length], [[1, 10], 10]);
  const values = Float32Array.from({ length: 1024 }, (_, index) => Math.fround(Math.sin(index)));
  const image = tensor('float32', [1, 1, 32, 32], values);
  const [logits] = graph.run([image]);
  const memory = graph.memoryBytes;
  for (let round = 0; round < 10; round += 1) assert.deepEqual(graph.run({ image })[0]?.data, logits?.data);
  assert.equal(graph.memoryBytes, memory, 'memory grew');

  const actor = await ImageClassifier.load(await verify(actorBytes, builtTrust()));
  const request = {
    inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 1, 32, 32], data: [...values] }],
    outputs: [{ name: 'logits' }],
  };
  const answer = await actor.request('POST', '/v2/models/digits/infer', Buffer.from(JSON.stringify(request)));
  const body = JSON.parse(Buffer.from(answer.body).toString()) as { outputs: { data: number[] }[] };
  assert.deepEqual(Float32Array.from(body.outputs[0]?.data ?? []), logits?.data);
});

test('tensors that the graph does not read are refused by name', async (context) => {
  const bytes = built(context, 'digits-graph/relaxed-simd.wasm');
  if (!bytes) return;
  const graph = await WasmGraph.load(await verify(bytes, builtTrust()));
  const image = tensor('float32', [1, 1, 32, 32], new Float32Array(1024));
  const flat = tensor('float32', [1024], new Float32Array(1024));
  const int = tensor('int32', [1, 1, 32, 32], new Int32Array(1024));
  for (const inputs of [[], [image, image], [flat], [int], {}, { picture: image }, { image, more: image }]) {
    assert.equal(await codeOf(() => graph.run(inputs)), 'bad_tensor');
  }
  assert.equal(graph.run([image]).length, 1);
});

test('an actor is no graph, and a graph is no library', async (context) => {
  const [actor, graph] = [built(context, 'digits/relaxed-simd.wasm'), built(context, 'digits-graph/relaxed-simd.wasm')];
  if (!actor || !graph) return;
  const trust = builtTrust();
  await assert.rejects(async () => WasmGraph.load(await verify(actor, trust)), { code: 'not_this_kind' });
  await assert.rejects(async () => ImageClassifier.load(await verify(graph, trust)), { code: 'not_this_kind' });
});

test('the fastest build that an engine runs is picked', () => {
  const level = (relaxed: boolean, simd: boolean) =>
    simdLevel((bytes) => (bytes === RELAXED_PROBE ? relaxed : bytes === SIMD128_PROBE && simd));
  assert.deepEqual([level(true, true), level(false, true), level(false, false)], ['relaxed', 'simd128', 'none']);
  // The probes are modules: this engine has 128-bit SIMD.
  assert.ok(WebAssembly.validate(SIMD128_PROBE));
  const both = [{ simd: 'simd128' }, { simd: 'relaxed' }] as const;
  assert.equal(pickVariant(both, 'relaxed')?.simd, 'relaxed');
  assert.equal(pickVariant(both, 'simd128')?.simd, 'simd128');
  assert.equal(pickVariant(both, 'none'), undefined);
  assert.equal(pickVariant([{ simd: 'none' }, ...both], 'none')?.simd, 'none');
});
