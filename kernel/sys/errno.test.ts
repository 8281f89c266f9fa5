import { readFileSync } from 'node:fs';
import test from 'ava';
import { AT_FDCWD, isErrno, openat, SysError } from './index.ts';
import { describeErrno, errnos } from './errno.ts';

function thrown(act: () => unknown): NodeJS.ErrnoException {
  try {
    act();
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error('nothing was thrown');
}

test('a SysError has the fields of the error that Node throws for the same fault', (t) => {
  const theirs = thrown(() => readFileSync('/no/such/file'));
  const ours = thrown(() => openat(AT_FDCWD, '/no/such/file', 0));
  t.is(ours.code, theirs.code);
  t.is(ours.errno, theirs.errno);
  t.is(ours.path, theirs.path);
  t.is(ours.syscall, 'openat');
  t.is(ours.message, "ENOENT: no such file or directory, openat '/no/such/file'");
  t.false('dest' in ours);
  t.true(ours instanceof SysError);
});

test('isErrno knows both kinds and nothing else', (t) => {
  t.true(
    isErrno(
      thrown(() => readFileSync('/no/such/file')),
      'EEXIST',
      'ENOENT',
    ),
  );
  t.true(isErrno(new SysError(errnos.EBUSY, 'umount2'), 'EBUSY'));
  t.false(isErrno(new SysError(errnos.EBUSY, 'umount2'), 'ENOENT'));
  t.false(isErrno(new Error('x'), 'ENOENT'));
  t.false(isErrno('ENOENT', 'ENOENT'));
});

test('every errno that this folder tells apart has the name it is called by', (t) => {
  for (const [name, errno] of Object.entries(errnos)) {
    // libuv has one name for the two that Linux gives the same number.
    t.is(describeErrno(errno)[0], name === 'EOPNOTSUPP' ? 'ENOTSUP' : name);
  }
});

test('errors that libuv does not name are named all the same', (t) => {
  t.is(describeErrno(117)[0], 'EUCLEAN');
  t.is(describeErrno(122)[0], 'EDQUOT');
  t.is(describeErrno(116)[0], 'ESTALE');
  t.is(describeErrno(999)[0], 'E999');
});

test('bytes that are not UTF-8 can be shown', (t) => {
  t.is(new SysError(errnos.ENOENT, 'openat', Buffer.from([0x61, 0xff])).path, 'a\ufffd');
});

test('two paths are shown as Node shows them', (t) => {
  const error = new SysError(errnos.EBUSY, 'mount', 'a', 'b', 'type none');
  t.is(error.message, "EBUSY: resource busy or locked, mount 'a' -> 'b' (type none)");
  t.is(error.dest, 'b');
});
