// Writes the page's trust file. Reads what `graphlet keys list --json` printed, and behind it what
// `graphlet inspect --json` printed of modules: the issuers of those that this machine lets in are
// trusted, and everything else holds as here, what was revoked above all.
// @ts-check

import { readFileSync } from 'node:fs';

/** @typedef {{ verified: boolean, reason: string }} Verdict */
/** @typedef {{ file: string, verdict: Verdict, claims: { issuer: string, issuer_name?: string } }} Report */

// Each text is indented: only its first line begins with an opening brace.
const texts = readFileSync(0, 'utf8').split(/^(?=\{)/m);
const read = texts.map((text) => /** @type {unknown} */ (JSON.parse(text)));
const [trust, ...reports] = /** @type {[object, ...Report[]]} */ (read);
/** @type {Map<string, string>} */
const issuers = new Map();
for (const { file, verdict, claims } of reports) {
  if (verdict.verified) issuers.set(claims.issuer, claims.issuer_name ?? '');
  else process.stderr.write(`    ${file} is refused here and will be on the page: ${verdict.reason}\n`);
}
const issuer = [...issuers].map(([key, name]) => ({ key, name }));
process.stdout.write(`${JSON.stringify({ ...trust, issuer }, null, 2)}\n`);
