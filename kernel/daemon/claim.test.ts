import { lchownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { rootTest } from '../../test/helpers/privilege.ts';
import { Failure } from '../sdk/failure.ts';
import { claim, markerName } from './claim.ts';

function scratch(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'troupe-claim-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

function refused(t: ExecutionContext, dir: string, words: RegExp): void {
  const before = readdirSync(dir);
  const failure = t.throws(() => claim(dir, 'state', 0o711), { instanceOf: Failure, message: words }) as Failure;
  t.is(failure.code, 'FailedPrecondition');
  t.deepEqual(readdirSync(dir), before);
}

test('a directory that is not there is made, marked, locked, and claimed again when it was let go', (t) => {
  const dir = join(scratch(t), 'a', 'state');
  const first = claim(dir, 'state', 0o711);
  t.is(statSync(dir).mode & 0o7777, 0o711);
  t.deepEqual(readdirSync(dir), [markerName]);
  refused(t, dir, /is in use by another daemon: failed precondition$/);
  first.release();
  claim(dir, 'state', 0o700).release();
  t.is(statSync(dir).mode & 0o7777, 0o700);
});

test('what is not empty and not ours is refused, and so is one of another kind', (t) => {
  const dir = scratch(t);
  writeFileSync(join(dir, 'meta.db'), '');
  refused(t, dir, /it has no \.troupe and holds meta\.db; name an empty directory/);
  const other = join(scratch(t), 'root');
  claim(other, 'root', 0o700).release();
  refused(t, other, /is marked "troupe root 1", not as a state/);
});

test('a link of ours to a directory of ours will do', (t) => {
  const base = scratch(t);
  mkdirSync(join(base, 'disk'));
  symlinkSync('disk', join(base, 'state'));
  claim(join(base, 'state'), 'state', 0o711).release();
  t.deepEqual(readdirSync(join(base, 'disk')), [markerName]);
});

rootTest(
  'what another user made is refused, also with our marker in it, and so is his link to a directory of ours',
  (t) => {
    const base = scratch(t);
    const theirs = join(base, 'theirs');
    mkdirSync(theirs, { mode: 0o777 });
    writeFileSync(join(theirs, markerName), 'troupe state 1\n');
    lchownSync(theirs, 65_534, 65_534);
    refused(t, theirs, /belongs to uid 65534, and the daemon runs as 0: failed precondition$/);
    mkdirSync(join(base, 'ours'));
    symlinkSync('ours', join(base, 'link'));
    lchownSync(join(base, 'link'), 65_534, 65_534);
    refused(t, join(base, 'link'), /belongs to uid 65534/);
  },
);
