/** From a runtime's name to the shim's binary, and what generation of the protocol that binary speaks at its start. */

import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, dirname, isAbsolute, join, normalize } from 'node:path';
import { Failure } from 'troupe/plugin';
import type { TasksHost } from './host.ts';
import { runShim } from './shim-process.ts';
import { systemWords } from './shim-failure.ts';

/** `io.containerd.runc.v2`: at least one part, then the name and the version that make the binary's name. */
const runtimeName = /^(?:[A-Za-z0-9_-]+\.)+([A-Za-z0-9_-]+)\.(v[0-9]+)$/;

/**
 * The absolute path of the binary for `runtime`: an absolute path as it is, or `a.b.NAME.vN` as `containerd-shim-NAME-vN` in `searchPath` (PATH) or beside
 * the daemon. Everything else is refused, relative paths among it: they would be resolved against wherever the daemon happens to stand.
 *
 * @throws Failure Unknown, as containerd does.
 */
export function resolveShimBinary(runtime: string, searchPath: string, daemonBinary: string): string {
  if (isAbsolute(runtime) && !runtime.includes('\0')) {
    try {
      statSync(runtime);
    } catch (error) {
      const reason = systemWords(error as NodeJS.ErrnoException);
      throw new Failure('Unknown', `invalid custom binary path: stat ${runtime}: ${reason}: unknown`, { cause: error });
    }
    return normalize(runtime);
  }
  const match = runtimeName.exec(runtime);
  if (match === null) {
    throw new Failure(
      'Unknown',
      `invalid runtime name ${printable(runtime)}, correct runtime name should be either format like \`io.containerd.runc.v1\` or a full path to the binary: unknown`,
    );
  }
  const name = `containerd-shim-${match[1]}-${match[2]}`;
  for (const directory of [...searchPath.split(delimiter), dirname(daemonBinary)]) {
    const path = join(directory, name);
    // An empty or relative entry of PATH means the current directory, which is nobody's choice in a daemon.
    if (isAbsolute(directory) && isExecutable(path)) return path;
  }
  throw new Failure('Unknown', `runtime "${runtime}" binary not installed "${name}": file does not exist: unknown`);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function printable(text: string): string {
  return JSON.stringify(text.slice(0, 256)).slice(1, -1);
}

/** What a shim reads from stdin at `start`: an Any of its options up to 2.2, BootstrapParams since. */
export type StartInput = 'options' | 'bootstrap';

const inputs = new Map<string, StartInput>();

/**
 * Asks `shim -v` once per binary, and again when the file has changed. Only what containerd's own shim library prints counts as a version: a shim of another
 * family has its own numbers, and takes the older input, which all of them read.
 */
export async function startInputOf(host: TasksHost, binary: string): Promise<StartInput> {
  const { mtimeMs, size, ino } = statSync(binary);
  const key = `${binary}\0${mtimeMs}\0${size}\0${ino}`;
  const known = inputs.get(key);
  if (known !== undefined) return known;
  const input = await probe(host, binary);
  if (inputs.size >= 64) inputs.clear();
  inputs.set(key, input);
  return input;
}

async function probe(host: TasksHost, binary: string): Promise<StartInput> {
  try {
    const { stdout } = await runShim(host, { binary, args: ['-v'], cwd: '/', timeout: host.timeouts.cleanup });
    const version = /^\S+:\s+Version:\s+v?(\d+)\.(\d+)/.exec(stdout.toString());
    if (version === null) return 'options';
    const [major, minor] = [Number(version[1]), Number(version[2])];
    return major > 2 || (major === 2 && minor >= 3) ? 'bootstrap' : 'options';
  } catch {
    return 'options';
  }
}
