/** Archives made by hand, for tests: every field may be wrong. Not for production, which writes through writer.ts. */

import { BLOCK, fields } from './format.ts';
import { checksums } from './number.ts';
import { formatRecord } from './pax.ts';
import { padding } from './writer.ts';

export interface Crafted {
  name?: string | Buffer;
  /** The flag, as in typeFlags; '0' if absent. */
  type?: string;
  link?: string | Buffer;
  body?: string | Buffer;
  /** Numbers are written as octal; text and bytes as they are. */
  mode?: number | string | Buffer;
  uid?: number | string | Buffer;
  gid?: number | string | Buffer;
  size?: number | string | Buffer;
  mtime?: number | string | Buffer;
  devMajor?: number | string | Buffer;
  devMinor?: number | string | Buffer;
  checksum?: number | string | Buffer;
  /** Eight bytes of magic and version. */
  magic?: string;
  /** Bytes to lay over the block before its checksum is made: offset → bytes. */
  patch?: Record<number, string | Buffer>;
}

export function header(crafted: Crafted): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (field: keyof typeof fields, value: number | string | Buffer): void => {
    const [offset, size] = fields[field];
    const bytes =
      typeof value === 'number'
        ? Buffer.from(value.toString(8).padStart(size - 1, '0'))
        : typeof value === 'string'
          ? Buffer.from(value, 'latin1')
          : value;
    bytes.copy(block, offset, 0, size);
  };
  put('name', crafted.name ?? 'file');
  put('mode', crafted.mode ?? 0o644);
  put('uid', crafted.uid ?? 0);
  put('gid', crafted.gid ?? 0);
  put('size', crafted.size ?? bodyOf(crafted).length);
  put('mtime', crafted.mtime ?? 1_600_000_000);
  put('type', crafted.type ?? '0');
  put('linkName', crafted.link ?? '');
  block.write(crafted.magic ?? 'ustar\x0000', fields.magic[0], 'latin1');
  put('devMajor', crafted.devMajor ?? 0);
  put('devMinor', crafted.devMinor ?? 0);
  for (const [offset, bytes] of Object.entries(crafted.patch ?? {})) {
    Buffer.from(bytes as string, 'latin1').copy(block, Number(offset));
  }
  put(
    'checksum',
    crafted.checksum ?? `${checksums(block, fields.checksum[0]).unsigned.toString(8).padStart(6, '0')}\0 `,
  );
  return block;
}

function bodyOf(crafted: Crafted): Buffer {
  return Buffer.from((crafted.body ?? '') as string, 'latin1');
}

/** A header with its body, padded. */
export function entry(crafted: Crafted): Buffer {
  const body = bodyOf(crafted);
  return Buffer.concat([header(crafted), body, padding(body.length)]);
}

/** An extended header (`x`) from records; values are text or bytes. */
export function pax(records: Record<string, string | Buffer>, type = 'x'): Buffer {
  return paxBody(
    Buffer.concat(Object.entries(records).map(([key, value]) => formatRecord(key, Buffer.from(value as string)))),
    type,
  );
}

/** An extended header with any body. */
export function paxBody(body: string | Buffer, type = 'x'): Buffer {
  return entry({ name: 'PaxHeaders.0/file', type, body: Buffer.from(body as string, 'latin1') });
}

export function archive(...parts: Buffer[]): Buffer {
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

/** Base-256 as GNU writes it, for values that octal cannot say. */
export function base256(value: bigint, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let rest = BigInt.asUintN(size * 8, value);
  for (let i = size - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[0] = bytes[0]! | 0x80;
  return bytes;
}
