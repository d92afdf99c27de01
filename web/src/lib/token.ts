// The token in a module: a JSON Web Token with Ed25519, read as strictly as crates/claims (token.rs)
// reads it. Everything that two readers could take in two ways is refused.

import { GraphletError, sentence } from './errors.ts';
import { type Json, JsonNumber, parseJson } from './json.ts';
import { KeyError, parseKey, verifies } from './keys.ts';
import type { Bytes, TokenName } from './sections.ts';

/** What an issuer says about one module. */
export interface Claims {
  /** Who says it (`iss`): `A…`. */
  readonly issuer: string;
  /** Which actor it is about (`sub`): `M…`. */
  readonly subject: string;
  /** Identity of this statement (`jti`), for revocation. */
  readonly id: string;
  /** When it was made, in seconds since 1970 (`iat`). */
  readonly issuedAt: number;
  /** From when it does not hold any more (`exp`). */
  readonly expires: number | undefined;
  /** From when it holds (`nbf`). */
  readonly notBefore: number | undefined;
  /** Name of the actor. */
  readonly name: string | undefined;
  /** SHA-256 of the module without token sections, in upper-case hexadecimal. */
  readonly hash: string;
  readonly tags: readonly string[];
  /** Capabilities the actor may be linked to, such as `wascc:http_server`. */
  readonly capabilities: readonly string[];
  /** A number that grows from release to release. */
  readonly revision: number | undefined;
  readonly version: string | undefined;
  /** True for a capability provider, which is no actor. */
  readonly provider: boolean;
}

/** A token taken apart; its signature is not checked yet. */
export interface Token {
  readonly claims: Claims;
  readonly signed: Bytes;
  readonly signature: Bytes;
}

const MAX_TOKEN_BYTES = 16 << 10;
const MAX_TEXT_BYTES = 1024;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const text = new TextEncoder();

/** Reads a token. */
export function parseToken(section: TokenName, bytes: Bytes): Token {
  const refuse = (why: string, code: 'token_malformed' | 'token_algorithm' = 'token_malformed') =>
    new GraphletError(code, `the token in section \`${section}\` is not acceptable: ${why}`);
  if (bytes.length > MAX_TOKEN_BYTES) throw refuse(`it has ${bytes.length} bytes, more than ${MAX_TOKEN_BYTES}`);
  const parts = read(() => utf8.decode(bytes).split('.'), () => refuse('it is not text'));
  const [header = '', payload = '', signature = ''] = parts;
  if (parts.length !== 3) throw refuse('a token is three parts joined by dots');

  const part = (encoded: string, name: string) =>
    read(() => fields(parseJson(utf8.decode(base64url(encoded)))), (why) => refuse(`the ${name} cannot be read: ${why}`));
  const head = part(header, 'header');
  const [type, algorithm] = [head.get('typ'), head.get('alg')];
  // Unknown fields (`crit`, `b64`, `jwk`, …) change what a signature means.
  if (head.size !== 2 || typeof type !== 'string' || typeof algorithm !== 'string') {
    throw refuse('the header cannot be read: it has `typ` and `alg` and nothing else');
  }
  if (algorithm !== 'Ed25519') {
    throw refuse(`the algorithm is ${JSON.stringify(algorithm)}; only "Ed25519" is accepted`, 'token_algorithm');
  }
  if (type !== 'jwt') throw refuse(`the type is ${JSON.stringify(type)}; only "jwt" is accepted`);
  const claims = read(() => readClaims(part(payload, 'claims')), (why) => refuse(why));
  const signatureBytes = read(() => base64url(signature), () => refuse('the signature is not canonical base64url'));
  if (signatureBytes.length !== 64) throw refuse(`the signature has ${signatureBytes.length} bytes instead of 64`);
  return { claims, signed: text.encode(`${header}.${payload}`), signature: signatureBytes };
}

/** Whether the issuer that the claims name signed them. Says nothing about trust in it. */
export async function isAuthentic(token: Token): Promise<boolean> {
  return verifies(parseKey(token.claims.issuer, 'issuer'), token.signed, token.signature);
}

function read<T>(what: () => T, refusal: (why: string) => GraphletError): T {
  try {
    return what();
  } catch (error) {
    throw error instanceof GraphletError ? error : refusal(sentence(error));
  }
}

/** base64url without padding, foreign characters or spare bits that are not zero. */
function base64url(encoded: string): Bytes {
  if (!/^[\w-]*$/.test(encoded) || encoded.length % 4 === 1) throw new Error('not canonical base64url');
  const bytes = Uint8Array.from(atob(encoded.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  const again = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  if (again !== encoded) throw new Error('not canonical base64url');
  return bytes;
}

function fields(value: Json | undefined): Map<string, Json> {
  if (value instanceof Map) return value;
  throw new Error('not an object');
}

function readClaims(payload: Map<string, Json>): Claims {
  const wascap = fields(payload.get('wascap'));
  const hash = wascap.get('hash');
  if (typeof hash !== 'string' || !/^[\dA-F]{64}$/.test(hash)) {
    throw new Error('the claim `hash` is not a SHA-256 in upper-case hexadecimal');
  }
  const issuedAt = time('iat', payload.get('iat'));
  if (issuedAt === undefined) throw new Error('the claim `iat` is missing');
  const provider = wascap.get('prov') ?? (wascap.has('prov') ? undefined : false);
  if (typeof provider !== 'boolean') throw new Error('the claim `prov` is neither true nor false');
  return {
    issuer: key('iss', payload.get('iss'), 'issuer'),
    subject: key('sub', payload.get('sub'), 'actor'),
    id: words('jti', [payload.get('jti')], 1)[0] ?? '',
    issuedAt,
    expires: time('exp', payload.get('exp')),
    notBefore: time('nbf', payload.get('nbf')),
    name: optionalWord('name', wascap.get('name')),
    hash,
    tags: words('tags', list('tags', wascap.get('tags')), 1),
    capabilities: words('caps', list('caps', wascap.get('caps')), 1),
    revision: integer('rev', wascap.get('rev'), -(2n ** 31n), 2n ** 31n - 1n),
    version: optionalWord('ver', wascap.get('ver')),
    provider,
  };
}

function key(claim: string, value: Json | undefined, kind: 'issuer' | 'actor'): string {
  if (typeof value !== 'string') throw new Error(`the claim \`${claim}\` is no key`);
  try {
    parseKey(value, kind);
  } catch (error) {
    if (error instanceof KeyError) throw new Error(`the claim \`${claim}\`: ${error.message}`);
    throw error;
  }
  return value;
}

function integer(claim: string, value: Json | undefined, least: bigint, most: bigint): number | undefined {
  if (value === undefined || value === null) return undefined;
  const found = value instanceof JsonNumber ? value.integer : undefined;
  if (found === undefined || found < least || found > most) throw new Error(`the claim \`${claim}\` is no such number`);
  return Number(found);
}

function time(claim: string, value: Json | undefined): number | undefined {
  return integer(claim, value, 0n, 2n ** 64n - 1n);
}

function list(claim: string, value: Json | undefined): Json[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Error(`the claim \`${claim}\` is no list`);
  return value;
}

// Names reach pages and logs: no escape sequence, no line feed.
function words(claim: string, values: readonly (Json | undefined)[], least: number): string[] {
  return values.map((value) => {
    const length = typeof value === 'string' ? text.encode(value).length : -1;
    if (typeof value !== 'string' || length < least || length > MAX_TEXT_BYTES || /\p{Cc}/u.test(value)) {
      throw new Error(`the claim \`${claim}\` is empty, too long or holds control characters`);
    }
    return value;
  });
}

function optionalWord(claim: string, value: Json | undefined): string | undefined {
  return value === undefined || value === null ? undefined : words(claim, [value], 0)[0];
}
