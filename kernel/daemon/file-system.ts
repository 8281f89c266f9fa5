/** What a directory lies on, where that is not what a daemon's data should lie on (statfs(2) has the numbers). */
import { statfsSync } from 'node:fs';

const notLocal = 'locks and fsync of it are not those of a local disk, on which records rely';
const doubtful: Readonly<Record<number, readonly [name: string, why: string]>> = {
  26985: ['nfs', notLocal],
  4283649346: ['cifs', notLocal],
  4266872130: ['smb', notLocal],
  20859: ['smb', notLocal],
  16914839: ['9p', notLocal],
  12805120: ['ceph', notLocal],
  2035054128: ['overlayfs', 'overlayfs does not work on top of it, so snapshots are whole copies'],
  16914836: ['tmpfs', 'nothing on it survives a reboot'],
  2240043254: ['ramfs', 'nothing on it survives a reboot'],
};

/** @returns `lies on nfs: …`, or undefined when nothing speaks against it, or nothing is known */
export function doubtOf(dir: string, type = typeOf(dir)): string | undefined {
  const found = type === undefined ? undefined : doubtful[type];
  return found === undefined ? undefined : `${dir} lies on ${found[0]}: ${found[1]}`;
}

function typeOf(dir: string): number | undefined {
  try {
    // A signed number on 32 bits.
    return statfsSync(dir).type >>> 0;
  } catch {
    return undefined;
  }
}
