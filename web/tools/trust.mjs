// Reads what `graphlet inspect --json` printed of modules, one behind the other, and writes the
// page's trust file: the issuers of those that this machine's own trust file lets in.
// @ts-check

import { readFileSync } from 'node:fs';

/** @type {Map<string, string>} */
const issuers = new Map();
// Reports are indented: only their first line begins with an opening brace.
for (const text of readFileSync(0, 'utf8').split(/^(?=\{)/m)) {
  if (text.trim() === '') continue;
  const { file, verdict, claims } = JSON.parse(text);
  if (verdict.verified) issuers.set(claims.issuer, claims.issuer_name ?? '');
  else process.stderr.write(`    ${file} is refused here and will be on the page: ${verdict.reason}\n`);
}
const issuer = [...issuers].map(([key, name]) => ({ key, name }));
process.stdout.write(`${JSON.stringify({ issuer }, null, 2)}\n`);
