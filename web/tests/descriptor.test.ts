// The wire descriptor against the bytes that crates/tensor pins, and everything it must refuse.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tensor } from '../src/lib/index.ts';
import { descriptorBytes, readDescriptor, type TensorPlace, writeDescriptor } from '../src/lib/tensor.ts';
import { join, latin1 } from './common.ts';

const SAMPLE: TensorPlace[] = [
  { dtype: 'float32', shape: [2, 3], address: 64 },
  { dtype: 'int64', shape: [], address: 128 },
  { dtype: 'bool', shape: [0, 7], address: 0 },
  { dtype: 'bfloat16', shape: [4], address: 1 << 20 },
];

test('the format is the one that the Rust side pins', () => {
  const expected = latin1(
    'GLTD\x01\0\x01\0\x02\x20\x01\0\x02\0\0\0\x40\0\0\0\x18\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0',
  );
  assert.deepEqual(writeDescriptor([{ dtype: 'float32', shape: [2, 3], address: 64 }]), expected);
});

test('tensors come back as they were described', () => {
  const bytes = writeDescriptor(SAMPLE);
  assert.deepEqual(readDescriptor(bytes), SAMPLE);
  assert.equal(bytes.length, descriptorBytes([2, 0, 2, 1]));
  assert.deepEqual(readDescriptor(writeDescriptor([])), []);
});

test('a cut or longer descriptor is refused wherever it ends', () => {
  const bytes = writeDescriptor(SAMPLE);
  for (let length = 0; length < bytes.length; length += 1) {
    const expected = length < 8 ? /not a tensor descriptor/ : /ends in tensor \d of 4/;
    assert.throws(() => readDescriptor(bytes.slice(0, length)), expected, `${length} bytes`);
  }
  assert.throws(() => readDescriptor(join(bytes, Uint8Array.of(0))), /1 bytes follow/);
});

test('every wrong field is named', () => {
  for (const [at, value, expected] of [
    [0, 0x67, /not a tensor descriptor/],
    [4, 2, /version 2/],
    [6, 5, /ends in tensor 4 of 5/],
    [6, 3, /24 bytes follow/],
    [8, 9, /tensor 0 has an unknown type/],
    [10, 4, /tensor 0 has an unknown type/],
    [12, 65, /tensor 0 has 65 dimensions/],
    [16, 65, /address 65, which is no multiple/],
    [20, 25, /tensor 0 takes 24 bytes, not 25/],
    [31, 0x80, /no shape/],
    [30, 0x7f, /no shape/],
  ] as const) {
    const bytes = writeDescriptor(SAMPLE);
    bytes[at] = value;
    assert.throws(() => readDescriptor(bytes), expected, `byte ${at}`);
  }
});

test('a tensor is refused unless type, extents and data fit', () => {
  assert.deepEqual(tensor('int8', [2], Int8Array.of(1, 2)).shape, [2]);
  for (const make of [
    () => tensor('int8', [3], Int8Array.of(1, 2)),
    () => tensor('int8', [-2], Int8Array.of(1, 2)),
    () => tensor('int8', [1.5], Int8Array.of(1)),
    () => tensor('int8', [2], Uint8Array.of(1, 2) as unknown as Int8Array),
    () => tensor('float8' as 'int8', [2], Int8Array.of(1, 2)),
    () => tensor('int8', Array<number>(65).fill(1), Int8Array.of(1)),
  ]) {
    assert.throws(make, { code: 'bad_tensor' });
  }
});
