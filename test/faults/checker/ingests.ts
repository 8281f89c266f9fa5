/** 6. Ingests: ref, directory and record are one to one; the offset is the size of the data, and the total what was announced. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { listDirectory } from './blobs.ts';
import { type Breach, Ledger } from './breach.ts';
import type { Picture } from './subject.ts';

export function checkIngests({ root, rows, listing }: Pick<Picture, 'root' | 'rows' | 'listing'>): Breach[] {
  const ledger = new Ledger(6);
  const base = join(root, 'io.containerd.content.v1.content', 'ingest');
  const directories = new Set(listDirectory(base));
  const statuses = new Map(listing.ingests.map((each) => [`${each.ns}/${each.ref}`, each]));
  for (const { ns, ref, directory } of rows.ingests) {
    const name = `${ns}/${ref}`;
    const path = join(base, directory);
    const status = statuses.get(name);
    statuses.delete(name);
    if (!directories.delete(directory)) {
      ledger.unsettled(`ingest/${name}`, `its directory ${path} is not there`);
      continue;
    }
    const written = read(join(path, 'ref'));
    if (written !== name)
      ledger.unsettled(path, `is of ${JSON.stringify(written)}, and the record says ${JSON.stringify(name)}`);
    if (status === undefined) {
      ledger.unsettled(`ingest/${name}`, 'has a record, and is not listed');
      continue;
    }
    const size = statSync(join(path, 'data'), { throwIfNoEntry: false })?.size ?? 0;
    if (status.offset !== size)
      ledger.unsettled(path, `has ${size} bytes of data, and its offset is said to be ${status.offset}`);
    const total = Number(read(join(path, 'total')) ?? 0);
    if (status.total !== total && status.total !== 0)
      ledger.unsettled(path, `expects ${total} bytes, and is said to expect ${status.total}`);
  }
  for (const name of statuses.keys()) ledger.unsettled(`ingest/${name}`, 'is listed, and has no record');
  for (const name of directories) ledger.unsettled(join(base, name), 'is an ingest that no record names');
  return ledger.breaches;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
