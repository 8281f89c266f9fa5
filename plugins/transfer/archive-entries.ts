/** The entries of an archive one after the other, each with its bytes as they come: the pushed parser of layers turned around for who stores entries over a bus. */
import { Failure, release } from 'troupe/plugin';
import type { TarHeader } from '../lib/tar/format.ts';
import { TarReader } from '../lib/tar/reader.ts';

export interface ArchiveEntry {
  readonly header: TarHeader;
  /** To be read, or passed over, before the next entry. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

type Event = { readonly header: TarHeader } | { readonly data: Uint8Array; readonly position: number } | 'end';

/** An image has few files; a tree packed in the place of one has many. */
const mostEntries = 100_000;

/** @throws Failure InvalidArgument for what is no archive, or a sparse file in one */
export async function* archiveEntries(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<ArchiveEntry, void, undefined> {
  const events = eventsOf(chunks);
  for (;;) {
    const { done, value } = await events.next();
    if (done === true) return;
    if (typeof value === 'string' || !('header' in value)) continue;
    yield { header: value.header, bytes: bodyOf(events) };
  }
}

/** Ends with the entry, not with the archive. */
async function* bodyOf(events: AsyncGenerator<Event, void, undefined>): AsyncGenerator<Uint8Array, void, undefined> {
  let ended = false;
  try {
    while (!ended) {
      const { done, value } = await events.next();
      ended = done === true || value === 'end';
      if (!ended && value !== undefined && typeof value !== 'string' && 'data' in value) yield value.data;
    }
  } finally {
    while (!ended) {
      const { done, value } = await events.next();
      ended = done === true || value === 'end';
    }
  }
}

async function* eventsOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Event, void, undefined> {
  let events: Event[] = [];
  let position = 0;
  const reader = new TarReader(
    {
      entry(header) {
        if (header.sparse !== undefined)
          throw new Failure('InvalidArgument', 'archive of images: a sparse file has no place in it: invalid argument');
        position = 0;
        events.push({ header });
      },
      data(data) {
        events.push({ data, position });
        position += data.length;
      },
      end: () => events.push('end'),
    },
    'archive of images',
    { entries: mostEntries },
  );
  for await (const chunk of chunks) {
    reader.push(chunk);
    // Data lies in the chunk, which is ours until the next is asked for.
    const come = events;
    events = [];
    yield* come;
    release(chunk);
  }
  reader.finish();
}
