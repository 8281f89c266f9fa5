import { check, declareSyscall } from './libc.ts';

const getdents64C = declareSyscall<(fd: number, buffer: Uint8Array, size: number) => number>({ x64: 217, arm64: 61 }, [
  'int',
  'void *',
  'size_t',
]);

/** One for the thread. */
const entries = Buffer.alloc(64 << 10);
const DOT = 0x2e;

/**
 * getdents64(2): the names in the directory that `fd` was opened for reading, from its position on, in no particular order and without `.` and `..`. `fs.readdir`
 * opens the directory once more by a path: with it a walk of 66,000 inodes in 11,000 directories took 390 ms, with this 275.
 */
export function readNames(fd: number): Buffer[] {
  const names: Buffer[] = [];
  for (;;) {
    const length = check(getdents64C()(fd, entries, entries.length), 'getdents64');
    if (length === 0) return names;
    // struct linux_dirent64: inode, offset, 8 bytes each; length of the record, 2; type, 1; then the name and a NUL.
    for (let at = 0, size = 0; at < length; at += size) {
      size = entries.readUInt16LE(at + 16);
      const start = at + 19;
      const end = entries.indexOf(0, start);
      if (isDots(start, end)) continue;
      names.push(Buffer.from(entries.subarray(start, end)));
    }
  }
}

function isDots(start: number, end: number): boolean {
  return entries[start] === DOT && (end === start + 1 || (end === start + 2 && entries[start + 1] === DOT));
}
