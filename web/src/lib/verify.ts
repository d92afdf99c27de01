// Verification: the only way from bytes to a module that may run, step by step that of crates/claims
// (verify.rs): the file's shape, the tokens' form, their signatures, their hashes, that they agree,
// then trust, revocations and time.

import { GraphletError } from './errors.ts';
import { hasEd25519, hex } from './keys.ts';
import { type Bytes, customSection, tokenSections } from './sections.ts';
import { type Claims, isAuthentic, parseToken, type Token } from './token.ts';
import type { Trust } from './trust.ts';

/** How far two clocks may be apart, in seconds. */
export const CLOCK_SKEW = 60;

const SECRET = Symbol('only verify() makes one');

/** Settings of {@link verify}. */
export interface VerifyOptions {
  /** The time, in seconds since 1970; the clock's unless given. */
  readonly now?: number;
  /** Let modules run that carry no token at all. A token that is there must hold all the same. */
  readonly dangerouslyAllowUnsigned?: boolean;
}

/** A module that may run; only {@link verify} makes one. */
export class VerifiedModule {
  /** @internal */
  constructor(
    secret: symbol,
    /** The file, tokens included: a copy that nobody else writes to. */
    readonly bytes: Bytes,
    /** Digest of the whole file: `sha256:` and hexadecimal. */
    readonly digest: string,
    /** The claims; undefined for an unsigned module that an option let in. */
    readonly claims: Claims | undefined,
    /** What the trust file calls the issuer. */
    readonly issuerName: string,
  ) {
    if (secret !== SECRET) throw new TypeError('only verify() makes a verified module');
  }

  /** The contents of a custom section, as text of JSON; undefined when there is none. */
  json(section: string): unknown {
    const data = customSection(this.bytes, section);
    return data && JSON.parse(new TextDecoder().decode(data));
  }
}

/**
 * Checks a module. Throws {@link GraphletError} with the code that `graphlet verify` gives; nothing
 * of the module is compiled or run before.
 */
export async function verify(bytes: Uint8Array, trust: Trust, options: VerifyOptions = {}): Promise<VerifiedModule> {
  // What the caller does with its bytes from now on changes nothing.
  const own = bytes.slice();
  const { digest, claims } = await authenticate(own);
  if (claims) check(claims, trust, options.now ?? Date.now() / 1000);
  else if (!options.dangerouslyAllowUnsigned) throw new GraphletError('unsigned', 'the module is not signed');
  const name = claims ? (trust.issuers.get(claims.issuer) ?? '') : '';
  return new VerifiedModule(SECRET, own, digest, claims, name);
}

/** The claims of a module whose tokens hold, whoever issued them: to be shown, not to be trusted. */
export async function authenticClaims(bytes: Uint8Array): Promise<Claims> {
  const { claims } = await authenticate(bytes.slice());
  if (!claims) throw new GraphletError('unsigned', 'the module is not signed');
  return claims;
}

/** Everything that holds or fails whoever is trusted. */
async function authenticate(bytes: Bytes): Promise<{ digest: string; claims: Claims | undefined }> {
  const found = tokenSections(bytes);
  const tokens = found.map((section) => parseToken(section.name, section.data));
  if (tokens.length > 0 && !(await hasEd25519())) {
    throw new GraphletError(
      'no_ed25519',
      'this browser cannot check Ed25519 signatures, or the page was not loaded from a secure address (https or localhost)',
    );
  }
  // `jwt` is about everything before it, `wasmcloud_jwt` about everything before both.
  const hash = async (end: number) => hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes.subarray(0, end))));
  const [digest, ...hashes] = await Promise.all([hash(bytes.length), ...found.map((section) => hash(section.hashed))]);
  for (const [index, token] of tokens.entries()) {
    if (!(await isAuthentic(token))) {
      throw new GraphletError(
        'signature_mismatch',
        `the token in section \`${found[index]?.name}\` was not signed by the issuer that it names`,
      );
    }
  }
  for (const [index, token] of tokens.entries()) {
    if (token.claims.hash !== hashes[index]?.toUpperCase()) {
      throw new GraphletError(
        'hash_mismatch',
        `the module was changed after it was signed: the token in section \`${found[index]?.name}\` is about another one`,
      );
    }
  }
  const [first, second] = tokens;
  if (first && second) agree(first, second);
  if (first?.claims.provider) {
    throw new GraphletError('not_an_actor', 'the claims are those of a capability provider, not of an actor');
  }
  return { digest: `sha256:${digest}`, claims: first?.claims };
}

/** Two tokens in one module say the same about everything that decides whether and how it runs. */
function agree(one: Token, other: Token): void {
  const claims = ['issuer', 'subject', 'id', 'expires', 'notBefore', 'capabilities', 'revision', 'provider'] as const;
  for (const claim of claims) {
    if (JSON.stringify(one.claims[claim]) !== JSON.stringify(other.claims[claim])) {
      throw new GraphletError('tokens_disagree', `the module's two tokens disagree about \`${claim}\``);
    }
  }
}

/** Trust, revocations, revisions, capabilities, time. */
function check(claims: Claims, trust: Trust, now: number): void {
  const { issuer, subject, id, revision, expires, notBefore } = claims;
  if (!trust.issuers.has(issuer)) {
    throw new GraphletError('untrusted_issuer', `the issuer ${issuer} is not trusted here`);
  }
  if (trust.revokedSubjects.has(subject)) {
    throw new GraphletError('revoked_subject', `the actor ${subject} was revoked`);
  }
  if (trust.revokedTokens.has(id)) {
    throw new GraphletError('revoked_token', `the token ${JSON.stringify(id)} was revoked`);
  }
  const least = trust.minimumRevisions.get(subject);
  if (least !== undefined && (revision ?? Number.NEGATIVE_INFINITY) < least) {
    throw new GraphletError(
      'revision_too_low',
      `the module's revision is ${revision ?? 'not given'}, at least ${least} is required`,
    );
  }
  const other = trust.allowedCapabilities && claims.capabilities.find((name) => !trust.allowedCapabilities?.has(name));
  if (other !== undefined) {
    throw new GraphletError(
      'capability_not_allowed',
      `the module claims the capability ${JSON.stringify(other)}, which is not allowed here`,
    );
  }
  if (expires === undefined && trust.requireExpiry) {
    throw new GraphletError('no_expiry', 'the claims never expire, and an expiry is required here');
  }
  if (expires !== undefined && now >= expires + CLOCK_SKEW) {
    throw new GraphletError('expired', `the claims expired on ${day(expires)}`);
  }
  if (notBefore !== undefined && now + CLOCK_SKEW < notBefore) {
    throw new GraphletError('not_yet_valid', `the claims hold only from ${day(notBefore)} on`);
  }
}

/** A time as people read it: `2026-11-21 21:00 UTC`. */
export function day(seconds: number): string {
  const time = new Date(seconds * 1000);
  return Number.isNaN(time.getTime()) ? `${seconds}` : `${time.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}
