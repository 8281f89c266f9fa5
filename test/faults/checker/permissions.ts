/** 11. Root 0700, state 0711, sockets 0660, records for root alone, nothing that everybody may write outside of images' own files. */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { listDirectory } from './blobs.ts';
import { type Breach, Ledger } from './breach.ts';
import type { Picture } from './subject.ts';

export function checkPermissions({ root, state, address }: Pick<Picture, 'root' | 'state' | 'address'>): Breach[] {
  const ledger = new Ledger(11);
  const wanted: [path: string, modes: number[]][] = [
    [root, [0o700]],
    [state, [0o711, 0o700]],
    [address, [0o660]],
    [`${address}.ttrpc`, [0o660, 0o600]],
  ];
  for (const [path, modes] of wanted) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) {
      if (!path.endsWith('.ttrpc')) ledger.breach(path, 'is not there');
    } else if (!modes.includes(stat.mode & 0o7777))
      ledger.breach(path, `has mode ${octal(stat.mode)}, not ${modes.map(octal).join(' or ')}`);
  }
  for (const top of [root, state]) walk(top, ledger);
  return ledger.breaches;
}

function walk(directory: string, ledger: Ledger): void {
  for (const name of listDirectory(directory)) {
    const path = join(directory, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || stat.isSymbolicLink()) continue;
    if ((stat.mode & 0o002) !== 0) ledger.unsettled(path, `has mode ${octal(stat.mode)}: everybody may write it`);
    if ((stat.mode & 0o044) !== 0 && /\.db(-|\.|$)/.test(name) && stat.isFile())
      ledger.breach(path, `has mode ${octal(stat.mode)}: others may read the records`);
    // What images and containers put into their files is theirs; the directory around it is ours.
    if (stat.isDirectory() && !['snapshots', 'trash', 'rootfs'].includes(name)) walk(path, ledger);
    else if (name === 'snapshots')
      for (const id of listDirectory(path)) {
        const mode = lstatSync(join(path, id), { throwIfNoEntry: false })?.mode ?? 0o700;
        if (directory.endsWith('.overlayfs') && (mode & 0o077) !== 0)
          ledger.breach(join(path, id), `has mode ${octal(mode)}, not 0700`);
      }
  }
}

const octal = (mode: number): string => `0${(mode & 0o7777).toString(8)}`;
