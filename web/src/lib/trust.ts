// Whose modules may run here, and which of theirs may not: the trust file of the host
// (`~/.config/graphlet/trust.toml`, keys/README.md), with the same names, as JSON.

import { GraphletError, sentence } from './errors.ts';
import { type Json, JsonNumber, parseJson } from './json.ts';
import { parseKey } from './keys.ts';

/** What a module must satisfy to run here. */
export interface Trust {
  /** Who may sign, and what people here call them. */
  readonly issuers: ReadonlyMap<string, string>;
  /** Refuse claims that never expire. */
  readonly requireExpiry: boolean;
  /** Capabilities that modules may claim; undefined for any. */
  readonly allowedCapabilities: ReadonlySet<string> | undefined;
  /** Actors (`sub`) that may not run any more. */
  readonly revokedSubjects: ReadonlySet<string>;
  /** Statements (`jti`) that do not hold any more. */
  readonly revokedTokens: ReadonlySet<string>;
  /** The least revision per actor. */
  readonly minimumRevisions: ReadonlyMap<string, number>;
}

/** Trusts nobody. */
export const NO_TRUST: Trust = {
  issuers: new Map(),
  requireExpiry: false,
  allowedCapabilities: undefined,
  revokedSubjects: new Set(),
  revokedTokens: new Set(),
  minimumRevisions: new Map(),
};

/**
 * Reads `{"issuer": [{"key": "A…", "name": "…"}], "require_expiry": true, "allowed_capabilities":
 * […], "revoked": {"subjects": ["M…"], "tokens": […]}, "minimum_revisions": {"M…": 3}}`, of which
 * everything may be left out. What it does not know it refuses: a mistyped `revoked` would revoke
 * nothing.
 */
export function readTrust(text: string): Trust {
  try {
    const file = known(parseJson(text), [
      'issuer', 'require_expiry', 'allowed_capabilities', 'revoked', 'minimum_revisions',
    ]);
    const revoked = known(file.get('revoked') ?? new Map<string, Json>(), ['subjects', 'tokens']);
    const requireExpiry = file.get('require_expiry') ?? false;
    if (typeof requireExpiry !== 'boolean') throw new Error('`require_expiry` is neither true nor false');
    const capabilities = file.get('allowed_capabilities');
    const subjects = strings(revoked.get('subjects') ?? []);
    for (const subject of subjects) parseKey(subject, 'actor');
    return {
      issuers: new Map(array(file.get('issuer') ?? []).map(issuer)),
      requireExpiry,
      allowedCapabilities: capabilities === undefined ? undefined : new Set(strings(capabilities)),
      revokedSubjects: new Set(subjects),
      revokedTokens: new Set(strings(revoked.get('tokens') ?? [])),
      minimumRevisions: new Map([...known(file.get('minimum_revisions') ?? new Map<string, Json>())].map(revision)),
    };
  } catch (error) {
    throw new GraphletError('bad_trust', `the list of trusted issuers cannot be read: ${sentence(error)}`);
  }
}

/** The same trust, and in these issuers too. */
export function withIssuers(trust: Trust, more: Iterable<readonly [key: string, name: string]>): Trust {
  return { ...trust, issuers: new Map([...more, ...trust.issuers]) };
}

function issuer(value: Json): [string, string] {
  const entry = known(value, ['key', 'name']);
  const [key, name] = [entry.get('key'), entry.get('name') ?? ''];
  if (typeof key !== 'string' || typeof name !== 'string') throw new Error('an issuer has a `key` and a `name`');
  parseKey(key, 'issuer');
  return [key, name];
}

function revision([subject, value]: [string, Json]): [string, number] {
  parseKey(subject, 'actor');
  const least = value instanceof JsonNumber ? value.integer : undefined;
  if (least === undefined) throw new Error('a least revision is an integer');
  return [subject, Number(least)];
}

function known(value: Json, keys?: readonly string[]): Map<string, Json> {
  if (!(value instanceof Map)) throw new Error('not an object');
  const other = keys && [...value.keys()].find((key) => !keys.includes(key));
  if (other !== undefined) throw new Error(`\`${other}\` means nothing here`);
  return value;
}

function array(value: Json): Json[] {
  if (!Array.isArray(value)) throw new Error('not a list');
  return value;
}

function strings(value: Json): string[] {
  return array(value).map((text) => {
    if (typeof text !== 'string') throw new Error('not a list of texts');
    return text;
  });
}
