/** The files that a module is made of: itself and what it imports by a relative path, and so on. Read, not run, so that code that does not parse has one as well. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const imports = /(?:\bfrom|\bimport)\s*\(?\s*(['"])(\.{1,2}\/[^'"]+)\1/g;

/** Absolute paths. A file that is not there is in it too: that it appears is a change. */
export function closureOf(entry: string): Set<string> {
  const found = new Set([entry]);
  for (const file of found) {
    let text: string;
    try {
      text = readFileSync(file, 'utf8');
    } catch {
      continue;
    }
    for (const [, , path] of text.matchAll(imports)) found.add(join(dirname(file), path!));
  }
  return found;
}
