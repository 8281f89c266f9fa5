/** A disk with no space left, as `ctr` sees it: the words name the reason, and with room again the same command works. */
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MNT_DETACH, mount, unmountAll } from 'troupe/sys';
import { useDaemon } from '../helpers/daemon.ts';
import { needing } from '../helpers/privilege.ts';
import { run } from '../helpers/command.ts';
import { useScratch } from '../helpers/scratch.ts';

const mebibyte = 1 << 20;

needing(
  'root',
  'mount',
  'program ctr',
)('an ingest that the disk has no space for is told so, and goes on when it has', async (t) => {
  const disk = mkdtempSync(join(tmpdir(), 'troupe-full-'));
  mount('tmpfs', disk, 'tmpfs', 0, `size=${64 * mebibyte}`);
  t.teardown(() => {
    unmountAll(disk, MNT_DETACH);
    rmdirSync(disk);
  });
  const daemon = await useDaemon(t, { dir: join(disk, 'daemon') });
  const other = join(disk, 'other');
  writeFileSync(other, Buffer.alloc(48 * mebibyte));
  const input = join(useScratch(t, 'full'), 'input');
  writeFileSync(input, Buffer.alloc(32 * mebibyte, 'x'));
  // From a file, which can be gone on with; in messages of a megabyte, which are answered before they are written.
  const ingest = () => run('sh', ['-c', 'exec ctr -a "$0" content ingest large < "$1"', daemon.address, input]);
  const refused = await ingest();
  t.regex(refused.stderr, /no space left on device/);
  t.is(refused.code, 1);
  rmSync(other);
  const taken = await ingest();
  t.is(taken.code, 0, taken.stderr);
});
