/**
 * How a thread begins that has an image: `make.ts` puts this file beside the images as CommonJS, so that a thread waits neither for the loader of modules nor for
 * a stripper of types.
 *
 * Beside an image lies what V8 has compiled of it in a rehearsal (rehearse.ts). Without it every function is compiled by the first call, and what a reload calls first,
 * it calls while everybody's calls wait: that was half of a hold. Node's compile cache is no help there: it holds what a module runs while it is loaded.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { constants, Script } from 'node:vm';
import { threadId } from 'node:worker_threads';

/** What an image is: its code, as a function of what it needs from outside. */
type Image = (
  require: NodeJS.Require,
  module: { exports: unknown },
  exports: unknown,
  url: string,
  keep: () => void,
) => void;

/**
 * @param dir of the images
 * @param name of one, without its ending
 * @param keepMs how often a rehearsal keeps what has been compiled, where nobody tells the thread that it ends: that of a pool
 * @returns what it exports: of a pool's, its tasks
 */
export function enter(dir: string, name: string, keepMs?: number): unknown {
  const path = join(dir, `${name}.js`);
  const url = pathToFileURL(path).href;
  const compiled = join(dir, `${name}.code`);
  const cachedData = read(compiled);
  const script = new Script(readFileSync(path, 'utf8'), {
    filename: url,
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
    // Of another Node, or with other flags: V8 does without.
    ...(cachedData === undefined ? {} : { cachedData }),
  });
  const keep = () => {
    const fresh = `${compiled}.${process.pid}.${threadId}`;
    // Some threads have no umask.
    writeFileSync(fresh, script.createCachedData(), { mode: 0o644 });
    renameSync(fresh, compiled);
  };
  const rehearses = process.env.TROUPE_REHEARSAL !== undefined;
  if (rehearses) {
    process.once('exit', keep);
    if (keepMs !== undefined) setInterval(keep, keepMs).unref();
  }
  const module = { exports: {} };
  (script.runInThisContext() as Image)(createRequire(path), module, module.exports, url, rehearses ? keep : () => {});
  return module.exports;
}

function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
