/** 5. Below root and state, and made of what lies there, exactly the root file systems of existing tasks are mounted; in the daemon's namespace and in ours. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Breach, Ledger } from './breach.ts';
import type { Picture } from './subject.ts';

export const bundlePath = (state: string, ns: string, id: string): string =>
  join(state, 'io.containerd.runtime.v2.task', ns, id);

export function checkMounts({
  root,
  state,
  pid,
  listing,
}: Pick<Picture, 'root' | 'state' | 'pid' | 'listing'>): Breach[] {
  const ledger = new Ledger(5);
  const wanted = new Set(listing.tasks.map(({ ns, id }) => join(bundlePath(state, ns, id), 'rootfs')));
  for (const viewer of ['self', String(pid)]) {
    const missing = new Set(wanted);
    for (const { point, options } of mountinfo(viewer)) {
      const ours =
        isBelow(point, root) || isBelow(point, state) || options.includes(`${root}/`) || options.includes(`${state}/`);
      if (!ours || missing.delete(point)) continue;
      ledger.unsettled(
        point,
        `is mounted for ${viewer === 'self' ? 'everybody' : `the daemon ${pid}`}, and is no task's${wanted.has(point) ? ' second' : ''} root`,
      );
    }
    for (const point of missing) ledger.unsettled(point, `is not mounted for ${viewer}, and its task is there`);
  }
  return ledger.breaches;
}

/** proc_pid_mountinfo(5). */
function mountinfo(pid: string): { point: string; options: string }[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      return { point: unescapePath(fields[4]!), options: fields.slice(fields.indexOf('-') + 3).join(' ') };
    });
}

const unescapePath = (text: string): string =>
  text.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** Strictly: the disk that a test mounted for us is not ours. */
function isBelow(path: string, directory: string): boolean {
  return path.startsWith(`${directory}/`);
}
