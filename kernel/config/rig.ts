/** For tests: configs in files of their own, loaded as root's. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Config, ConfigFlags } from './config.ts';
import type { Identity } from './identity.ts';
import { loadConfig } from './load.ts';
import { ProblemsError, renderProblem } from './problem.ts';

export const root: Identity = { uid: 0, gid: 0, env: {} };

/** Writes the files and gives the path of the first. */
export function files(t: ExecutionContext, contents: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'config-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const [name, text] of Object.entries(contents)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return join(dir, Object.keys(contents)[0]!);
}

export function load(t: ExecutionContext, text: string, flags?: ConfigFlags): Config {
  return loadConfig(files(t, { 'c.toml': text }), flags, root);
}

/** Problems, or warnings, with the directory taken off. */
export function told(file: string, what: 'problems' | 'warnings'): string[] {
  const strip = (text: string) => text.replaceAll(`${dirname(file)}/`, '');
  try {
    const config = loadConfig(file, {}, root);
    return what === 'warnings' ? config.warnings.map(renderProblem).map(strip) : [];
  } catch (error) {
    if (!(error instanceof ProblemsError)) throw error;
    return error.problems.map(renderProblem).map(strip);
  }
}

export const problems = (t: ExecutionContext, text: string) => told(files(t, { 'c.toml': text }), 'problems');
export const warnings = (t: ExecutionContext, text: string) => told(files(t, { 'c.toml': text }), 'warnings');
