// What tests share: a small module, keys to sign it with, the tools to break both, and the modules
// that scripts/web has built.

import { type KeyObject, createHash, createPrivateKey, sign as ed25519 } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { GraphletError, readTrust, type Trust } from '../src/lib/index.ts';
import type { Bytes } from '../src/lib/sections.ts';

export const web = process.env['GRAPHLET_WEB'] ?? process.cwd();
export const root = path.dirname(path.resolve(web));

/** A picture of a seven. */
export const SEVEN = path.join(root, 'models', 'digits', 'samples', '7.png');

/** A module that scripts/web built; skips the test when it is not there. */
export function built(context: TestContext, name: string): Bytes | undefined {
  const file = path.join(web, 'public', 'models', name);
  if (existsSync(file)) return Uint8Array.from(readFileSync(file));
  context.skip(`${name} is not built: make web`);
  return undefined;
}

/** Whom the built modules are signed by. */
export function builtTrust(): Trust {
  return readTrust(readFileSync(path.join(web, 'public', 'trust.json'), 'utf8'));
}

/** The code of the error that something ends with; fails when it goes well. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof GraphletError) return error.code;
    throw error;
  }
  throw new Error('it went well');
}

/** MVP WebAssembly by hand, that of crates/claims/tests: a function, a memory, a data segment. */
export const MODULE = latin1(
  '\0asm\x01\0\0\0' +
    '\x01\x85\x80\x80\x80\0\x01\x60\0\x01\x7f\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x07\x01\x03run\0\0' +
    '\x0a\x8f\0\x81\0\x8b\0\0\x41\xaa\x80\x80\x80\0\x28\x02\0\x0b\x0b\x0c\x01\0\x41\x80\x08\x0b\x05DATA!' +
    '\0\x0a\x04notekeep.',
);

export function latin1(text: string): Bytes {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

export function join(...parts: Uint8Array[]): Bytes {
  return Uint8Array.from(Buffer.concat(parts));
}

/** A private key of 32 equal bytes, as the tests of crates/claims have. */
export function seed(byte: number): KeyObject {
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.alloc(32, byte)]);
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

// nkeys of those seeds, written by the crate nkeys; claims.test.ts derives them anew.
export const ISSUER = nkey(0, seed(1));
export const ACTOR = nkey(12 << 3, seed(8));

/** A public key as text. */
export function nkey(prefix: number, key: KeyObject): string {
  const jwk = key.export({ format: 'jwk' });
  return nkeyOf(prefix, Buffer.from(jwk.x ?? '', 'base64url'));
}

export function nkeyOf(prefix: number, key: Uint8Array): string {
  const raw = [prefix, ...key];
  let crc = 0;
  for (const byte of raw) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  const bits = [...raw, crc & 255, crc >> 8].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const digits = bits.match(/.{5}/g) ?? [];
  return digits.map((digit) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[Number.parseInt(digit, 2)]).join('');
}

export interface Forgery {
  header?: string;
  /** Changes the claims before they are signed. */
  claims?: (json: string) => string;
  key?: KeyObject;
}

export const HEADER = '{"typ":"jwt","alg":"Ed25519"}';

/** A token about a module. */
export function token(
  module: Uint8Array,
  { header = HEADER, claims = (json) => json, key = seed(1) }: Forgery = {},
): string {
  const hash = createHash('sha256').update(module).digest('hex').toUpperCase();
  const json =
    `{"exp":1707776000,"jti":"ID","iat":1700000000,"iss":"${ISSUER}","sub":"${ACTOR}","nbf":1699999900,"wascap":{"name":"digits",` +
    `"hash":"${hash}","tags":["tag"],"caps":["wascc:http_server","wascc:logging"],"rev":3,"ver":"1.2.3","prov":false},"wascap_revision":3}`;
  const signed = [header, claims(json)].map((text) => Buffer.from(text).toString('base64url')).join('.');
  return `${signed}.${ed25519(null, Buffer.from(signed), key).toString('base64url')}`;
}

/** A custom section. */
export function custom(name: string, data: Uint8Array | string): Bytes {
  const body = Buffer.concat([Uint8Array.of(name.length), Buffer.from(name), Buffer.from(data)]);
  return join(Uint8Array.of(0, ...leb(body.length)), body);
}

export function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >> 7)];
}

/** A module with both tokens. */
export function signed(module: Uint8Array = MODULE, forgery: Forgery = {}): Bytes {
  const first = join(module, custom('wasmcloud_jwt', token(module, forgery)));
  return join(first, custom('jwt', token(first, forgery)));
}

/** Trusts the issuer of {@link signed}. */
export const TRUST: Trust = readTrust(`{"issuer": [{"key": "${ISSUER}", "name": "the tests"}]}`);
/** When the claims of {@link signed} hold. */
export const NOW = 1_700_000_100;

// --- waPC guests by hand --------------------------------------------------------------------------

/** Numbers of the imports of {@link guestModule}. */
export const [REQUEST, RESPONSE, ERROR, HOST_CALL, CONSOLE_LOG] = [0, 1, 2, 3, 4];
const I32 = 0x7f;

function section(id: number, ...body: number[]): number[] {
  return [id, ...leb(body.length), ...body];
}

function text(name: string): number[] {
  return [name.length, ...latin1(name)];
}

/** `i32.const`. */
export function constant(value: number): number[] {
  const bytes: number[] = [0x41];
  let left = value | 0;
  for (;;) {
    const byte = left & 127;
    left >>= 7;
    if ((left === 0 && !(byte & 64)) || (left === -1 && byte & 64)) return [...bytes, byte];
    bytes.push(byte | 128);
  }
}

/** A waPC guest whose `__guest_call` runs this code and then answers 1; `data` lies at address 16. */
export function guestModule(code: readonly number[], data = ''): Bytes {
  const names = ['__guest_request', '__guest_response', '__guest_error', '__host_call', '__console_log'];
  const body = [0, ...code, ...constant(1), 0x0b];
  const imported = names.flatMap((name) => [...text('wapc'), ...text(name), 0, name === '__host_call' ? 1 : 0]);
  return Uint8Array.from([
    ...latin1('\0asm\x01\0\0\0'),
    ...section(1, 3, 0x60, 2, I32, I32, 0, 0x60, 8, ...Array<number>(8).fill(I32), 1, I32, 0x60, 2, I32, I32, 1, I32),
    ...section(2, names.length, ...imported),
    ...section(3, 1, 2),
    ...section(5, 1, 0, 1),
    ...section(7, 2, ...text('memory'), 2, 0, ...text('__guest_call'), 0, names.length),
    ...section(10, 1, ...leb(body.length), ...body),
    ...section(11, 1, 0, ...constant(16), 0x0b, ...leb(data.length), ...latin1(data)),
  ]);
}

/** A module that imports a function of another host. */
export const FOREIGN = join(
  latin1('\0asm\x01\0\0\0'),
  Uint8Array.from([...section(1, 1, 0x60, 0, 0), ...section(2, 1, ...text('env'), ...text('steal'), 0, 0)]),
);
