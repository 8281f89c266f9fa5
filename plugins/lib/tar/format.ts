/**
 * The tar header block, as tables.
 *
 * Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"; star(5).
 * Offsets and sizes are bytes in a block of 512, in disk order.
 */

export const BLOCK = 512;

/** A field of the block: [offset, size]. */
type Field = readonly [offset: number, size: number];

/** What every dialect shares (v7). */
export const fields = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkName: [157, 100],
  magic: [257, 6],
  version: [263, 2],
  userName: [265, 32],
  groupName: [297, 32],
  devMajor: [329, 8],
  devMinor: [337, 8],
} as const satisfies Record<string, Field>;

/** ustar: the leading directories of a long name. */
export const ustarPrefix: Field = [345, 155];

/** star: a shorter prefix, then two times; told apart by `tar\0` at the end of the block. */
export const starFields = {
  prefix: [345, 131],
  atime: [476, 12],
  ctime: [488, 12],
  trailer: [508, 4],
} as const satisfies Record<string, Field>;

/** GNU: times where ustar has its prefix, then the old sparse map. */
export const gnuFields = {
  atime: [345, 12],
  ctime: [357, 12],
  sparse: [386, 96],
  sparseMore: [482, 1],
  realSize: [483, 12],
} as const satisfies Record<string, Field>;

/** A fragment of an old GNU sparse map: offset, then length, 12 bytes each; four in the header, 21 in each block that continues it. */
export const gnuSparse = { number: 12, inHeader: 4, inBlock: 21, more: 504 } as const;

/** Byte 156. Letters are ASCII; `\0` and `7` are read as a regular file. */
export const typeFlags = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  contiguous: '7',
  pax: 'x',
  paxGlobal: 'g',
  gnuLongName: 'L',
  gnuLongLink: 'K',
  gnuSparse: 'S',
} as const;

/** What an entry is. `global` is a pax global header, `other` a flag that no standard names. */
export type EntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo' | 'global' | 'other';

const types: Readonly<Record<string, EntryType>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
  g: 'global',
};

export function entryType(flag: string): EntryType {
  return types[flag] ?? 'other';
}

/** Entries of these types have no body, whatever their size field says: the next header follows at once. */
export function isHeaderOnly(type: EntryType): boolean {
  return type !== 'file' && type !== 'other';
}

/** A point in time: whole seconds since 1970 (negative before) and the nanoseconds to add, 0 to 999 999 999. */
export interface TarTime {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** A stretch of a sparse file that has bytes; what lies between two is a hole. */
export interface Fragment {
  readonly offset: number;
  readonly length: number;
}

/** One entry of an archive. Names are bytes as they are in the archive: no encoding is assumed, nothing is cleaned. */
export interface TarHeader {
  readonly type: EntryType;
  /** The byte at 156, as a character. */
  readonly typeFlag: string;
  readonly name: Buffer;
  /** Target of a symlink or a hardlink, else empty. */
  readonly linkName: Buffer;
  /** Bytes of the file as a reader of it sees them, holes included; 0 for entries without a body. */
  readonly size: number;
  /** The field as it is; only the low twelve bits mean something to a file system. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly userName: Buffer;
  readonly groupName: Buffer;
  readonly mtime: TarTime;
  readonly atime: TarTime | undefined;
  readonly ctime: TarTime | undefined;
  readonly devMajor: number;
  readonly devMinor: number;
  /** From SCHILY.xattr and LIBARCHIVE.xattr records; keys are byte strings (one character, one byte). */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Set for sparse files: the stretches that have bytes, in order, without overlap. */
  readonly sparse: readonly Fragment[] | undefined;
  /** Where the entry's own header block starts in the archive, in bytes. */
  readonly offset: number;
}
