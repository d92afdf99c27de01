// Keys as text: nkeys-encoded Ed25519 public keys of issuers (`A…`) and actors (`M…`), as
// crates/claims (keys.rs) has them: base32 without padding over a prefix byte, 32 bytes of key and
// a CRC-16 (XMODEM) in little-endian order.

import type { Bytes } from './sections.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const KINDS = {
  issuer: { prefix: 0, what: 'an issuer key', begins: 'A' },
  actor: { prefix: 12 << 3, what: 'an actor key', begins: 'M' },
} as const;
const KEY_CHARACTERS = 56;

/** A text is no key; the message says why. */
export class KeyError extends Error {
  override readonly name = 'KeyError';
}

/** The 32 bytes of a public key. Throws {@link KeyError}. */
export function parseKey(text: string, kind: keyof typeof KINDS): Bytes {
  const { prefix, what, begins } = KINDS[kind];
  if (text.length !== KEY_CHARACTERS) {
    throw new KeyError(`keys have ${KEY_CHARACTERS} characters, this text has ${text.length}`);
  }
  const raw = new Uint8Array(35);
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const character of text) {
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) throw new KeyError('not base32 (upper-case letters and the digits 2 to 7)');
    bits = ((bits << 5) | digit) & 0xfff;
    held += 5;
    if (held >= 8) {
      held -= 8;
      raw[at] = (bits >> held) & 255;
      at += 1;
    }
  }
  const crc = crc16(raw.subarray(0, 33));
  if (raw[33] !== (crc & 255) || raw[34] !== crc >> 8) {
    throw new KeyError('the checksum does not match: a character is wrong');
  }
  if (raw[0] !== prefix) throw new KeyError(`not ${what}: those begin with \`${begins}\``);
  const key = raw.slice(1, 33);
  // A key of small order verifies signatures that nobody made.
  if (isSmallOrder(key)) throw new KeyError('not a usable Ed25519 public key');
  return key;
}

/** Whether `signature` over `message` was made by the owner of `key`; as strict as the host. */
export async function verifies(key: Bytes, message: Bytes, signature: Bytes): Promise<boolean> {
  if (isSmallOrder(signature.subarray(0, 32))) return false;
  const algorithm = { name: 'Ed25519' };
  const imported = await crypto.subtle.importKey('raw', key, algorithm, false, ['verify']);
  return crypto.subtle.verify(algorithm, imported, signature, message);
}

/** Whether this browser can check Ed25519 signatures (Chromium 137, Firefox 129, Safari 17). */
export async function hasEd25519(): Promise<boolean> {
  try {
    // The base point of the curve: a key like any other.
    const base = new Uint8Array(32).fill(0x66);
    base[0] = 0x58;
    await crypto.subtle.importKey('raw', base, { name: 'Ed25519' }, false, ['verify']);
    return true;
  } catch {
    return false;
  }
}

/** CRC-16/XMODEM: polynomial 0x1021, no reflection, starting at 0. */
function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : crc << 1;
  }
  return crc;
}

// The y coordinates of the points whose order divides 8, in all encodings of 32 bytes, without the
// sign of x: 0, 1, the two of order 8, p - 1, and p and p + 1, which stand for 0 and 1.
const SMALL_ORDER = [
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
];

function isSmallOrder(point: Uint8Array): boolean {
  const y = point.slice();
  y[31] = (y[31] ?? 0) & 0x7f;
  return SMALL_ORDER.includes(hex(y));
}

/** Lower-case hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
