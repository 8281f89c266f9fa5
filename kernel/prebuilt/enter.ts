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

/** @param dir of the images @param name of one, without its ending */
export function enter(dir: string, name: string): void {
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
    if (process.env.TROUPE_REHEARSAL === undefined) return;
    const fresh = `${compiled}.${process.pid}.${threadId}`;
    writeFileSync(fresh, script.createCachedData());
    renameSync(fresh, compiled);
  };
  process.once('exit', keep);
  const module = { exports: {} };
  (script.runInThisContext() as Image)(createRequire(path), module, module.exports, url, keep);
}

function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
