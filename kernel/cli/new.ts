/**
 * `npm run new NAME [TYPE]`: a plugin's folder to begin with, which works, and whose tests pass. NAME may be a path; the folder is made where it was typed.
 * The files are those under templates/TYPE, with NAME, IDENTIFIER (for a .proto) and CLASS in them replaced.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { suggestion } from '../config/nearest.ts';
import type { Streams } from './run.ts';
import { installDir } from './version.ts';

const templates = join(import.meta.dirname, 'templates');

export const pluginTypes: readonly string[] = ['service', 'snapshotter', 'verifier', 'consumer'];

/** @throws Error with a text for people. Returns the folder. */
export function scaffold(path: string, type = 'service', cwd = process.cwd()): string {
  const name = basename(path);
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name) || name.length > 60)
    throw new Error(`"${name}" is no name for a plugin: lower-case letters, digits and single dashes, a letter first`);
  if (!pluginTypes.includes(type))
    throw new Error(`a plugin is one of ${pluginTypes.join(', ')}, not "${type}"${suggestion(type, pluginTypes)}`);
  const dir = resolve(cwd, path);
  mkdirSync(dir, { recursive: true });
  const there = readdirSync(dir);
  if (there.length > 0) throw new Error(`${dir} is not empty: it holds ${there.slice(0, 5).join(', ')}`);
  const fill = (text: string): string =>
    text
      .replaceAll('IDENTIFIER', name.replaceAll('-', '_'))
      .replaceAll(
        'CLASS',
        name.replace(/(?:^|-)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
      )
      .replaceAll('NAME', name);
  for (const file of readdirSync(join(templates, type))) {
    const text = readFileSync(join(templates, type, file), 'utf8');
    writeFileSync(join(dir, fill(file.replace(/\.template$/, ''))), fill(text), { flag: 'wx' });
  }
  // For editors alone: nothing of it is needed to run.
  writeFileSync(join(dir, 'tsconfig.json'), `${JSON.stringify(editorConfig(), null, 2)}\n`, { flag: 'wx' });
  return dir;
}

function editorConfig(): object {
  const { compilerOptions } = JSON.parse(readFileSync(join(installDir, 'tsconfig.json'), 'utf8')) as {
    compilerOptions: object;
  };
  const { exports } = JSON.parse(readFileSync(join(installDir, 'package.json'), 'utf8')) as {
    exports: Readonly<Record<string, string>>;
  };
  const paths = Object.entries(exports)
    .filter(([name]) => name !== './package.json')
    .map(([name, file]) => [name.replace('.', 'troupe'), [join(installDir, file)]]);
  const typeRoots = [join(installDir, 'node_modules', '@types')];
  // A folder without a package.json: its files are modules because they say so.
  const modules = { module: 'esnext', moduleResolution: 'bundler', moduleDetection: 'force' };
  return {
    compilerOptions: { ...compilerOptions, ...modules, typeRoots, paths: Object.fromEntries(paths) },
    include: ['*.ts'],
  };
}

function nextSteps(dir: string): string {
  return `${dir} is a plugin that works. Its tests:

  npm exec -- trouped plugins test ${dir}

To run it, name it in the config, and have the daemon read that (or start it with --watch, which reloads the plugin when you save):

  [kernel]
  plugin_dirs = ["${dir}"]

  npm exec -- trouped config reload
`;
}

export function newPlugin(args: readonly string[], streams: Streams, cwd: string): number {
  const [path, type, ...rest] = args;
  if (path === undefined || path.startsWith('-') || rest.length > 0) {
    streams.err(`usage: npm run new NAME [${pluginTypes.join(' | ')}]\n`);
    return 2;
  }
  try {
    streams.out(nextSteps(scaffold(path, type, cwd)));
    return 0;
  } catch (error) {
    streams.err(`new: ${(error as Error).message}\n`);
    return 1;
  }
}

if (import.meta.main) {
  const streams = {
    out: (text: string) => process.stdout.write(text),
    err: (text: string) => process.stderr.write(text),
  };
  // npm changes to the package's folder, and says from where.
  process.exitCode = newPlugin(process.argv.slice(2), streams, process.env.INIT_CWD ?? process.cwd());
}
