/** For tests: what the reader tells of an archive. */
import type { ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import type { TarHeader } from './format.ts';
import { TarReader, type TarLimits } from './reader.ts';

export interface Read extends TarHeader {
  readonly content: Buffer;
}

export function read(bytes: Buffer, chunk = bytes.length || 1, limits: Partial<TarLimits> = {}): Read[] {
  const entries: Read[] = [];
  let current: TarHeader | undefined;
  let content = Buffer.alloc(0);
  const reader = new TarReader(
    {
      entry(header) {
        current = header;
        content = Buffer.alloc(header.size);
      },
      data(part, position) {
        Buffer.from(part).copy(content, position);
      },
      end() {
        entries.push({ ...current!, content });
      },
    },
    'layer x',
    limits,
  );
  for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
  reader.finish();
  return entries;
}

export const names = (bytes: Buffer): string[] => read(bytes).map(({ name }) => name.toString());

/** All that it tells of an archive, in pieces of `chunk` bytes. Sizes in damaged headers may be huge: bytes are counted, and room is made for none. */
export function told(bytes: Buffer, chunk: number): string[] {
  const lines: string[] = [];
  let count = 0;
  const reader = new TarReader(
    {
      entry: ({ name, type, size }) => lines.push(`${name.toString('latin1')} ${type} ${size}`),
      data(part) {
        count += part.length;
      },
      end() {
        lines.push(`${count} bytes`);
        count = 0;
      },
    },
    'layer x',
  );
  try {
    for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
    reader.finish();
    lines.push('the end');
  } catch (error) {
    lines.push(error instanceof Failure ? `${error.code} ${error.message}` : `thrown: ${(error as Error).stack}`);
  }
  return lines;
}

/** Refuses it in one piece and in many, with a message of this kind. */
export function refuses(t: ExecutionContext, bytes: Buffer, message: RegExp): void {
  for (const chunk of [bytes.length, 777]) {
    const failure = t.throws(() => read(bytes, chunk), { instanceOf: Failure, message }) as Failure;
    t.is(failure.code, 'InvalidArgument');
    t.regex(failure.message, /^layer x: .* at offset \d+: invalid argument$/);
  }
}
