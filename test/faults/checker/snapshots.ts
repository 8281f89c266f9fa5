/**
 * 4. Snapshots in the records are directories and the other way round; parents are there and committed; the files of a committed one are
 * as long as its layer says, and hold what it says.
 */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { hashFile, listDirectory } from './blobs.ts';
import { type Breach, Ledger } from './breach.ts';
import type { Files } from './fixtures.ts';
import type { Picture } from './subject.ts';

const committed = 3;

export function checkSnapshots(picture: Pick<Picture, 'root' | 'rows' | 'fixtures' | 'oracle'>): Breach[] {
  const { root, rows } = picture;
  const ledger = new Ledger(4);
  const byId = new Map(rows.snapshots.map((row) => [row.id, row]));
  const directories = new Map<string, string>();
  for (const plugin of listDirectory(root).filter((name) => name.startsWith('io.containerd.snapshotter.v1.'))) {
    const snapshotter = plugin.slice('io.containerd.snapshotter.v1.'.length);
    for (const name of listDirectory(join(root, plugin, 'snapshots'))) {
      const path = join(root, plugin, 'snapshots', name);
      const row = byId.get(Number(name));
      if (row === undefined || row.snapshotter !== snapshotter || String(row.id) !== name)
        ledger.unsettled(path, 'is a directory that no record names');
      else directories.set(name, path);
    }
    for (const name of listDirectory(join(root, plugin, 'trash')))
      ledger.unsettled(join(root, plugin, 'trash', name), 'is trash that nobody removes');
  }
  for (const row of rows.snapshots) {
    const where = `snapshot/${row.ns}/${row.snapshotter}/${row.key} (${row.id})`;
    const path = directories.get(String(row.id));
    if (path === undefined) ledger.unsettled(where, 'has a record and no directory');
    if (row.parent !== null) {
      const parent = byId.get(row.parent);
      if (parent === undefined) ledger.unsettled(where, `its parent ${row.parent} is not there`);
      else if (parent.kind !== committed || parent.ns !== row.ns || parent.snapshotter !== row.snapshotter)
        ledger.unsettled(
          where,
          `its parent ${row.parent} is of kind ${parent.kind}, of ${parent.ns}/${parent.snapshotter}`,
        );
    }
    if (row.kind !== committed || path === undefined) continue;
    const files = filesOf(picture, row);
    if (files !== undefined) checkFiles(row.snapshotter === 'overlayfs' ? join(path, 'fs') : path, files, ledger);
  }
  for (const { owner, path } of rows.trash) ledger.unsettled(`trash of ${owner}`, `${path} is never removed`);
  return ledger.breaches;
}

/** What the snapshot must hold: of an unpacked layer by its chain id, of a client's own by what it wrote. */
function filesOf(
  { fixtures, oracle }: Pick<Picture, 'fixtures' | 'oracle'>,
  { ns, snapshotter, key }: { ns: string; snapshotter: string; key: string },
): Files | undefined {
  for (const image of fixtures.images) {
    const layer = image.layers.find((each) => each.chainId === key);
    if (layer !== undefined) return layer.files;
  }
  return oracle.possible.get(`snapshot/${ns}/${snapshotter}/${key}`)?.find((state) => state?.files !== undefined)
    ?.files as Files | undefined;
}

const seen = new Map<string, string>();

function checkFiles(base: string, files: Files, ledger: Ledger): void {
  for (const [name, [size, sha256]] of Object.entries(files)) {
    const path = join(base, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isFile())
      ledger.unsettled(
        path,
        `must be a file of ${size} bytes, and is ${stat === undefined ? 'not there' : 'something else'}`,
      );
    else if (stat.size !== size) ledger.unsettled(path, `must have ${size} bytes, and has ${stat.size}`);
    else {
      const key = `${path} ${stat.ino} ${stat.ctimeMs}`;
      const actual = seen.get(key) ?? hashFile(path);
      seen.set(key, actual);
      if (actual !== sha256) ledger.unsettled(path, `must hold sha256:${sha256}, and holds sha256:${actual}`);
    }
  }
}
