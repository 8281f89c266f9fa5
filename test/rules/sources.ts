/** The sources of the checkout, as git knows them, with what each imports. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const checkout: string = fileURLToPath(new URL('../..', import.meta.url));

export interface Source {
  /** Relative to the checkout. */
  readonly path: string;
  readonly text: string;
  readonly lines: number;
  readonly imports: readonly Import[];
}

export interface Import {
  /** As written; relative ones resolved against the checkout. */
  readonly target: string;
  readonly typeOnly: boolean;
}

/** Tracked and new files alike: a rule should speak before the commit. */
export function sources(): Source[] {
  return execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'], {
    cwd: checkout,
    encoding: 'utf8',
  })
    .split('\n')
    .filter(
      (path) =>
        path !== '' && !path.startsWith('proto/gen/') && !path.endsWith('.d.ts') && existsSync(join(checkout, path)),
    )
    .map((path) => {
      const text = readFileSync(join(checkout, path), 'utf8');
      return { path, text, lines: text.split('\n').length - 1, imports: importsOf(path, text) };
    });
}

function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  // Static imports and re-exports, and dynamic imports of a literal.
  for (const match of text.matchAll(
    /^(?:import|export)\s+(type\s)?[^'";]*?from\s+'([^']+)'|\bimport\('([^']+)'\)|^import '([^']+)'/gm,
  )) {
    const written = match[2] ?? match[3] ?? match[4]!;
    const target = written.startsWith('.') ? relative(checkout, join(checkout, dirname(path), written)) : written;
    found.push({ target, typeOnly: match[1] !== undefined });
  }
  return found;
}

export function isTest(path: string): boolean {
  return (
    path.endsWith('.test.ts') ||
    path === 'plugins/lib/layer/scratch.ts' ||
    path.startsWith('test/') ||
    path.startsWith('bench/')
  );
}
