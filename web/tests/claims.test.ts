// Every way in which a module must not verify, as in crates/claims/tests/refusals.rs, each on a
// module that verifies otherwise.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { KeyError, parseKey } from '../src/lib/keys.ts';
import { authenticClaims, readTrust, type Trust, verify, VerifiedModule } from '../src/lib/index.ts';
import {
  ACTOR,
  built,
  builtTrust,
  codeOf,
  custom,
  type Forgery,
  ISSUER,
  join,
  latin1,
  leb,
  MODULE,
  nkey,
  nkeyOf,
  NOW,
  seed,
  signed,
  token,
  TRUST,
  web,
} from './common.ts';

const GO_PUBLIC = 'ACODERUVFFAWZQDSS6SBIACUA5O6SXF7HJ3YTYXBALHZP3P7R4BUO4J2';

function refusal(bytes: Uint8Array, trust: Trust = TRUST, now = NOW): Promise<string> {
  return codeOf(() => verify(bytes, trust, { now }));
}

/** A module with one token. */
function forged(section: string, forgery: Forgery): Uint8Array {
  return join(MODULE, custom(section, token(MODULE, forgery)));
}

test('the module that the tests start from verifies, with both tokens and with either', async () => {
  const module = await verify(signed(), TRUST, { now: NOW });
  assert.equal(module.claims?.name, 'digits');
  assert.equal(module.issuerName, 'the tests');
  assert.deepEqual(module.claims.capabilities, ['wascc:http_server', 'wascc:logging']);
  assert.match(module.digest, /^sha256:[\da-f]{64}$/);
  for (const section of ['jwt', 'wasmcloud_jwt']) await verify(forged(section, {}), TRUST, { now: NOW });
});

test('altered and forged modules are refused for the right reason', async () => {
  const wc = custom('wasmcloud_jwt', token(MODULE));
  const jwt = custom('jwt', token(join(MODULE, wc)));
  const good = signed();
  const other = join(MODULE, custom('other', 'module'));
  const flip = (needle: string) => {
    const bytes = good.slice();
    const at = Buffer.from(bytes).indexOf(Buffer.from(latin1(needle)));
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  };
  const [first, rest] = [MODULE.slice(0, 8), MODULE.slice(8)];
  for (const [what, bytes, code] of [
    ['unsigned', MODULE, 'unsigned'],
    ['a byte of code flipped', flip('\x28\x02\0\x0b'), 'hash_mismatch'],
    ['a byte of data flipped', flip('DATA!'), 'hash_mismatch'],
    ['jwt section only, other module', join(other, jwt), 'hash_mismatch'],
    ['both sections, other module', join(other, wc, jwt), 'hash_mismatch'],
    ['wasmcloud_jwt taken away', join(MODULE, jwt), 'hash_mismatch'],
    ['the sections swapped', join(MODULE, jwt, wc), 'token_misplaced'],
    ['jwt first', join(first, jwt, rest, wc), 'token_misplaced'],
    ['both first', join(first, wc, jwt, rest), 'token_misplaced'],
    ['a section after them', join(good, custom('other', '')), 'token_misplaced'],
    ['a section between', join(MODULE, wc, custom('o', ''), jwt), 'token_misplaced'],
    ['jwt twice', join(good, jwt), 'token_duplicated'],
    ['both twice', join(good, wc, jwt), 'token_duplicated'],
    ['wasmcloud_jwt twice', join(MODULE, wc, wc, jwt), 'token_duplicated'],
    ['a component', join(latin1('\0asm\x0d\0\x01\0'), Uint8Array.of(1, ...leb(good.length)), good), 'component'],
    ['cut short', good.slice(0, -1), 'malformed_section'],
    ['a byte too many', join(good, Uint8Array.of(0)), 'malformed_section'],
    ['empty', new Uint8Array(), 'not_wasm'],
    ['a picture', latin1('\x89PNG\r\n\x1a\n'), 'not_wasm'],
    ['an unknown section', join(first, Uint8Array.of(14, 0), rest, wc, jwt), 'malformed_section'],
    [
      'a padded header',
      join(MODULE, Uint8Array.of(0, (jwt.length - 3) | 128, 128 | ((jwt.length - 3) >> 7), 0)),
      'malformed_section',
    ],
  ] as const) {
    assert.equal(await refusal(bytes), code, what);
  }
});

test('a token section with a padded header is refused though its token holds', async () => {
  const text = token(MODULE);
  const size = text.length + 4;
  const padded = join(
    MODULE,
    Uint8Array.of(0, (size & 127) | 128, (size >> 7) | 128, 0, 3),
    latin1('jwt'),
    latin1(text),
  );
  assert.equal(await refusal(padded), 'malformed_section');
});

test('a claim rewritten under an old signature is refused', async () => {
  const [header, payload = '', signature] = token(MODULE).split('.');
  const json = Buffer.from(payload, 'base64url').toString();
  for (const [from, to] of [
    ['wascc:logging', 'wascc:keyvalue'],
    ['"rev":3', '"rev":9'],
    ['"digits"', '"tabby!"'],
  ] as const) {
    const changed = Buffer.from(json.replace(from, to)).toString('base64url');
    const bytes = join(MODULE, custom('jwt', `${String(header)}.${changed}.${String(signature)}`));
    assert.equal(await refusal(bytes), 'signature_mismatch', from);
  }
  assert.equal(await refusal(forged('jwt', { key: seed(2) })), 'signature_mismatch');
});

test('every other algorithm, header and form of a token is refused', async () => {
  for (const algorithm of ['none', 'HS256', 'ES256', 'EdDSA', 'ed25519', '']) {
    assert.equal(
      await refusal(forged('jwt', { header: `{"typ":"jwt","alg":"${algorithm}"}` })),
      'token_algorithm',
      algorithm,
    );
  }
  for (const header of [
    '{"typ":"JWT","alg":"Ed25519"}',
    '{"typ":"jwt","alg":"Ed25519","crit":["b64"]}',
    '{"typ":"jwt","alg":"Ed25519","alg":"Ed25519"}',
    '{"typ":"jwt","alg":"Ed25519"} {}',
    '{"typ":"jwt"}',
    '["jwt","Ed25519"]',
    '',
  ]) {
    assert.equal(await refusal(forged('jwt', { header })), 'token_malformed', header);
  }
  const good = token(MODULE);
  const [signedPart, signature = ''] = [good.slice(0, good.lastIndexOf('.')), good.split('.')[2]];
  const spare = `${signature.slice(0, -1)}${String.fromCharCode(signature.charCodeAt(85) + 1)}`;
  for (const text of [
    `${good}=`,
    `${good}\n`,
    ` ${good}`,
    `${good}.`,
    signedPart,
    `${signedPart}.`,
    `${signedPart}.${signature.slice(0, 84)}`,
    `${signedPart}.${spare}`,
    '',
    'a'.repeat(20_000),
  ]) {
    assert.equal(await refusal(join(MODULE, custom('jwt', text))), 'token_malformed', text.slice(0, 30));
  }
});

test('claims with wrong types, texts or doubled keys are refused', async () => {
  const user = nkey(20 << 3, seed(1));
  for (const [from, to] of [
    ['1707776000', '1707776000.5'],
    ['1707776000', '-1'],
    ['1707776000', '"1707776000"'],
    [ISSUER, ACTOR],
    [ACTOR, ISSUER],
    [ISSUER, user],
    [ACTOR, 'module.wasm'],
    ['"digits"', '"\\u001b[2Jdigits"'],
    ['"ID"', '""'],
    ['wascc:logging', ''],
    ['"digits"', `"${'x'.repeat(2000)}"`],
    ['{"name":"digits"', '["digits"'],
    ['"prov":false', '"prov":null'],
    ['"rev":3', '"rev":2147483648'],
    ['{"exp"', '{"exp":9999,"exp"'],
    ['"prov"', '"caps":[],"prov"'],
    ['{"exp"', '{"unknown":{"a":1,"a":2},"exp"'],
    ['{"exp"', '{"unknown":1,"unk\\u006eown":2,"exp"'],
    ['{"exp"', '{"unknown":"\\ud800","exp"'],
    ['"hash":"', '"hash":"00'],
  ] as const) {
    assert.equal(
      await refusal(forged('jwt', { claims: (json) => json.replace(from, to) })),
      'token_malformed',
      `${from} ${to.slice(0, 40)}`,
    );
  }
  // An unknown key alone is no harm.
  await verify(forged('jwt', { claims: (json) => json.replace('{', '{"unknown":[1.5,null,true,-1],') }), TRUST, {
    now: NOW,
  });
});

test('two tokens that disagree, a wrong hash and a provider are refused though all signatures hold', async () => {
  const first = join(MODULE, custom('wasmcloud_jwt', token(MODULE)));
  const second = custom('jwt', token(first, { claims: (json) => json.replace('"rev":3', '"rev":4') }));
  assert.equal(await refusal(join(first, second)), 'tokens_disagree');
  const wrong = (json: string) => json.replace(/"hash":"\w{64}"/, `"hash":"${'0'.repeat(64)}"`);
  assert.equal(await refusal(forged('jwt', { claims: wrong })), 'hash_mismatch');
  assert.equal(
    await refusal(signed(MODULE, { claims: (json) => json.replace('"prov":false', '"prov":true') })),
    'not_an_actor',
  );
});

test('trust, revocations, revisions, capabilities and time decide last', async () => {
  const trust = (more: string) => readTrust(`{"issuer": [{"key": "${ISSUER}"}], ${more}}`);
  const forever = (json: string) => json.replace('"exp":1707776000,', '');
  for (const [what, code, policy, now] of [
    ['nobody is trusted', 'untrusted_issuer', readTrust('{}'), NOW],
    ['somebody else is', 'untrusted_issuer', readTrust(`{"issuer": [{"key": "${GO_PUBLIC}", "name": "x"}]}`), NOW],
    ['the actor was revoked', 'revoked_subject', trust(`"revoked": {"subjects": ["${ACTOR}"]}`), NOW],
    ['the token was revoked', 'revoked_token', trust('"revoked": {"tokens": ["ID"]}'), NOW],
    ['an old release', 'revision_too_low', trust(`"minimum_revisions": {"${ACTOR}": 4}`), NOW],
    ['too much is claimed', 'capability_not_allowed', trust('"allowed_capabilities": ["wascc:http_server"]'), NOW],
    ['too late', 'expired', TRUST, 1_707_776_060],
    ['too early', 'not_yet_valid', TRUST, 1_699_999_839],
  ] as const) {
    assert.equal(await refusal(signed(), policy, now), code, what);
  }
  // Just within the allowance for clocks, and exactly the revision.
  await verify(signed(), trust(`"minimum_revisions": {"${ACTOR}": 3}`), { now: 1_707_776_059 });
  await verify(signed(), TRUST, { now: 1_699_999_840 });
  const endless = signed(MODULE, { claims: forever });
  await verify(endless, TRUST, { now: 9e9 });
  assert.equal(await refusal(endless, trust('"require_expiry": true')), 'no_expiry');
});

test('what is wrong in a trust file is an error, not a rule less', () => {
  for (const text of [
    '',
    '[]',
    '{"issuers": []}',
    '{"revoked": {"subject": []}}',
    '{"revoked": {"subjects": ["A"]}}',
    '{"issuer": [{"key": "A"}]}',
    `{"issuer": [{"key": "${ACTOR}"}]}`,
    '{"require_expiry": 1}',
    `{"minimum_revisions": {"${ACTOR}": 1.5}}`,
    '{"issuer": [], "issuer": []}',
  ]) {
    assert.throws(() => readTrust(text), { code: 'bad_trust' }, text);
  }
});

test('keys are read as the Go tools and crates/claims write them, and one wrong character is noticed', () => {
  assert.equal(parseKey(GO_PUBLIC, 'issuer').length, 32);
  for (let at = 0; at < GO_PUBLIC.length; at += 1) {
    const wrong = GO_PUBLIC.slice(0, at) + (GO_PUBLIC[at] === '7' ? '2' : '7') + GO_PUBLIC.slice(at + 1);
    assert.throws(() => parseKey(wrong, 'issuer'), KeyError, wrong);
  }
  assert.throws(() => parseKey(GO_PUBLIC.toLowerCase(), 'issuer'), /base32/);
  assert.throws(() => parseKey(GO_PUBLIC, 'actor'), /begin with `M`/);
  assert.throws(() => parseKey('A', 'issuer'), /56 characters/);
});

test('a key of small order, for which everybody can sign, is refused', () => {
  for (const first of ['00', '01', 'ec', 'ed', 'ee']) {
    const rest = first === '00' || first === '01' ? '00'.repeat(31) : `${'ff'.repeat(30)}7f`;
    for (const sign of [0, 0x80]) {
      const key = Buffer.from(first + rest, 'hex');
      key[31] = (key[31] ?? 0) | sign;
      assert.throws(() => parseKey(nkeyOf(0, key), 'issuer'), /not a usable/, first);
    }
  }
});

test('only verify makes a verified module, and what the caller changes later changes nothing', async () => {
  assert.throws(() => new VerifiedModule(Symbol('mine'), MODULE, '', undefined, ''), TypeError);
  const bytes = signed();
  const promise = verify(bytes, TRUST, { now: NOW });
  bytes.fill(0);
  const module = await promise;
  assert.deepEqual(module.bytes, signed());
});

test('an unsigned module runs only where somebody says so, and then a token that is there must hold', async () => {
  const module = await verify(MODULE, TRUST, { dangerouslyAllowUnsigned: true });
  assert.equal(module.claims, undefined);
  const torn = join(MODULE, custom('jwt', token(join(MODULE, custom('x', '')))));
  assert.equal(await codeOf(() => verify(torn, TRUST, { now: NOW, dangerouslyAllowUnsigned: true })), 'hash_mismatch');
  assert.equal(await codeOf(() => authenticClaims(MODULE)), 'unsigned');
});

test('a module that graphlet has signed verifies, and with any byte changed it does not', async (context) => {
  const bytes = built(context, 'digits/relaxed-simd.wasm');
  if (!bytes) return;
  const trust = builtTrust();
  const module = await verify(bytes, trust);
  assert.equal(module.claims?.name, 'digits');
  assert.equal(module.claims.issuer, (await authenticClaims(bytes)).issuer);
  for (let at = 7; at < bytes.length; at += Math.floor(bytes.length / 23)) {
    const changed = bytes.slice();
    changed[at] = (changed[at] ?? 0) ^ 4;
    assert.notEqual(await codeOf(() => verify(changed, trust)), 'untrusted_issuer', `byte ${at}`);
  }
});

test('what this machine revokes, the page refuses as the command does', async (context) => {
  const [graphlet, name] = [process.env['GRAPHLET'], 'digits/simd128.wasm'];
  const bytes = built(context, name);
  if (!bytes) return;
  assert.ok(graphlet, 'GRAPHLET names the command');
  const folder = mkdtempSync(path.join(tmpdir(), 'graphlet-trust-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const module = path.join(web, 'public', 'models', name);
  const run = (file: string, given: string[], input = '') => {
    const env = { ...process.env, GRAPHLET_CONFIG_DIR: folder };
    return spawnSync(file, given, { env, input, encoding: 'utf8' });
  };
  const done = (...given: string[]) => {
    const ran = run(graphlet, given);
    assert.equal(ran.status, 0, ran.stderr);
    return ran.stdout;
  };
  // As scripts/web does it.
  const pageTrust = () => {
    const told = done('keys', 'list', '--json') + done('inspect', '--json', module);
    const ran = run(process.execPath, [path.join(web, 'tools', 'trust.mjs')], told);
    assert.equal(ran.status, 0, ran.stderr);
    return { trust: readTrust(ran.stdout), warned: ran.stderr };
  };
  const verdict = () => /\(([a-z_]+)\)/.exec(run(graphlet, ['verify', module]).stderr)?.[1];
  done('keys', 'new', '--name', 'stranger');
  assert.equal(await codeOf(() => verify(bytes, pageTrust().trust)), 'untrusted_issuer');
  done('keys', 'trust', '--module', module);
  const { trust, warned } = pageTrust();
  // Only whom the page needs: the stranger's key stays at home.
  assert.deepEqual([...trust.issuers.keys()], [(await verify(bytes, trust)).claims?.issuer]);
  assert.equal(warned, '');
  for (const [what, code] of [
    [[], 'revoked_token'],
    [['--actor'], 'revoked_subject'],
  ] as const) {
    done('keys', 'revoke', '--module', module, ...what);
    assert.equal(verdict(), code);
    const now = pageTrust();
    assert.match(now.warned, /is refused here and will be on the page/);
    // Another module may bring the issuer along.
    assert.equal(await codeOf(() => verify(bytes, { ...now.trust, issuers: trust.issuers })), code);
    done('keys', 'unrevoke', '--module', module, ...what);
  }
  assert.ok(await verify(bytes, pageTrust().trust));
});
