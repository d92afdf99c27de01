// Tensors as JSON: what crates/wasm-frontend takes and refuses, and the numbers of every type.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DATA_TYPES,
  type DataType,
  type DType,
  DTYPE_NAMES,
  operands,
  readTensors,
  writeTensor,
} from '../src/lib/index.ts';
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from '../src/lib/half.ts';
import { JsonError, parseJson } from '../src/lib/json.ts';

const read = (text: string, type: DataType) => readTensors(text, DATA_TYPES[type], type);
const one = (numbers: string, dtype: DType) =>
  readTensors(`[{"input-data": [${numbers}], "dim-size": 1, "shape": [${numbers.split(',').length}]}]`, dtype)
    .tensors[0];

test('what is written can be read again', () => {
  const { tensors } = read('[{"input-data": [0.1, -2, "NaN", "-Infinity"], "dim-size": 2, "shape": [2, 2]}]', 'FP32');
  const [first] = tensors;
  assert.ok(first);
  const written = writeTensor(first);
  assert.equal(written, '{"input-data": [0.1, -2, "NaN", "-Infinity"], "dim-size": 2, "shape": [2, 2]}');
  assert.deepEqual(read(`[${written}]`, 'FP32').tensors[0], first);
});

test('every mistake is named', () => {
  for (const [text, type, expected] of [
    ['', 'FP32', 'not a list of tensors'],
    ['{}', 'FP32', 'not a list of tensors'],
    ['[1]', 'FP32', 'not a list of tensors'],
    ['[{]', 'FP32', 'line 1, column 3'],
    ['[{"input-data": [1], "shape": [1]}]', 'FP32', 'dim-size'],
    ['[{"input-data": [1], "dim-size": 1, "shape": [1], "x": 1}]', 'FP32', '`x`'],
    ['[{"input-data": [1], "dim-size": 1, "shape": [1], "shape": [1]}]', 'FP32', 'twice'],
    ['[{"input-data": [1], "dim-size": 2, "shape": [1]}]', 'FP32', 'dim-size is 2'],
    ['[{"input-data": [1], "dim-size": 1.0, "shape": [1]}]', 'FP32', 'dim-size'],
    ['[{"input-data": [1, 2], "dim-size": 1, "shape": [3]}]', 'FP32', '2 numbers'],
    ['[{"input-data": [1], "dim-size": 1, "shape": [-1]}]', 'FP32', 'not a list'],
    ['[{"input-data": [], "dim-size": 2, "shape": [4294967296, 4294967296]}]', 'FP32', 'no shape'],
    ['[{"input-data": [128], "dim-size": 1, "shape": [1]}]', 'INT8', '`128` is no INT8'],
    ['[{"input-data": [1.5], "dim-size": 1, "shape": [1]}]', 'INT32', 'no INT32'],
    ['[{"input-data": [1.0], "dim-size": 1, "shape": [1]}]', 'INT32', '`1.0` is no INT32'],
    ['[{"input-data": [1e39], "dim-size": 1, "shape": [1]}]', 'FP32', 'no FP32'],
    ['[{"input-data": [1e999], "dim-size": 1, "shape": [1]}]', 'FP32', 'out of range'],
    ['[{"input-data": ["1"], "dim-size": 1, "shape": [1]}]', 'FP32', 'no FP32'],
    ['[{"input-data": [null], "dim-size": 1, "shape": [1]}]', 'INT8', 'no INT8'],
    ['[{"input-data": [1], "dim-size": 1, "shape": [1], "axis": 0.5}]', 'INT8', 'axis'],
  ] as const) {
    assert.throws(
      () => read(text, type),
      (error: Error) => error.message.includes(expected),
      `${text} ${expected}`,
    );
  }
});

test('the first axis becomes an int64 scalar behind the tensors', () => {
  const input = read('[{"input-data": [1], "dim-size": 1, "shape": [1], "axis": -1}]', 'INT8');
  assert.deepEqual(operands(input)[1], { dtype: 'int64', shape: [], data: BigInt64Array.of(-1n) });
  assert.equal(operands(read('[{"input-data": [1], "dim-size": 1, "shape": [1], "axis": null}]', 'INT8')).length, 1);
});

test('each type holds its own greatest numbers and refuses the next', () => {
  const edges: [DType, string, string][] = [
    ['int8', '-128, 127', '128'],
    ['uint8', '0, 255', '-1'],
    ['int16', '-32768, 32767', '32768'],
    ['uint16', '65535', '65536'],
    ['int32', '-2147483648', '2147483648'],
    ['uint32', '4294967295', '-1'],
    ['int64', '-9223372036854775808', '9223372036854775808'],
    ['uint64', '18446744073709551615', '18446744073709551616'],
    ['bool', 'true, false', '1'],
    ['float16', '65500, 0.1', '65520'],
    ['bfloat16', '3.38e+38', '3.4e+38'],
    ['float32', '3.4028235e+38, 1e-45', '3.4028236e+38'],
    ['float64', '1.7e+308', '"1"'],
  ];
  assert.deepEqual(edges.map(([dtype]) => dtype).sort(), [...DTYPE_NAMES].sort());
  for (const [dtype, good, bad] of edges) {
    const read = one(good, dtype);
    assert.ok(read);
    assert.ok(writeTensor(read).includes(`[${good}]`), `${dtype}: ${writeTensor(read)}`);
    assert.throws(() => one(bad, dtype), { code: 'bad_tensor' }, `${dtype} ${bad}`);
  }
});

test('floats are written with as few digits as bring them back', () => {
  for (const [bits, text] of [
    [0x3dcccccd, '0.1'],
    [0x80000000, '-0.0'],
    [0x4b800000, '16777216'],
    [1, '1e-45'],
    [0x3f800001, '1.0000001'],
  ] as const) {
    const data = new Float32Array(Uint32Array.of(bits).buffer);
    assert.ok(writeTensor({ dtype: 'float32', shape: [1], data }).includes(`[${text}]`), text);
  }
});

test('half precision comes back for all 65,536 bit patterns, and ties go to even', () => {
  for (let bits = 0; bits < 65_536; bits += 1) {
    for (const [from, to] of [
      [fromFloat16, toFloat16],
      [fromBfloat16, toBfloat16],
    ] as const) {
      const value = from(bits);
      if (!Number.isNaN(value)) assert.equal(to(value), bits, bits.toString(16));
    }
  }
  for (const [value, bits] of [
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 ** -25, 0],
    [2 ** -24 * 1.5, 2],
    [65_519, 0x7bff],
    [65_520, 0x7c00],
  ] as const) {
    assert.equal(toFloat16(value), bits, String(value));
  }
});

test('JSON is read strictly', () => {
  for (const text of [
    '',
    '01',
    '1.',
    '.5',
    '+1',
    '1e',
    'nul',
    '"\n"',
    '"\\x"',
    '"\\u12"',
    '"\\ud800"',
    '[1,]',
    '{"a":1,}',
    '{a:1}',
    '1 2',
    '['.repeat(200),
    'NaN',
    '\ufeff1',
  ]) {
    assert.throws(() => parseJson(text), JsonError, text.slice(0, 10));
  }
  assert.equal(parseJson(' "\\ud83d\\ude00\\n" '), '😀\n');
  assert.deepEqual(parseJson('[true, null, "a", {"__proto__": false}]'), [
    true,
    null,
    'a',
    new Map([['__proto__', false]]),
  ]);
});
