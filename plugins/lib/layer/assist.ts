/** The assistant's side of a feed: offers itself, and reads and inflates for as long as it is wanted. */

import { Failure } from 'troupe/plugin';
import { CorruptData } from '../compression/corrupt.ts';
import {
  ASSISTANT_MOVED,
  CHUNKS,
  CHUNKS_MADE,
  CHUNKS_TAKEN,
  type FeedMemory,
  type Note,
  PIECES,
  PIECES_HASHED,
  PIECES_READ,
  RELEASE,
  UNPACKER_MOVED,
} from './feed-memory.ts';
import { digestHelper } from './archive-digest.ts';
import { Inflow } from './inflow.ts';

/** The unpacker has closed: nobody reads what is made. */
class Closed extends Error {}

/** Comes back when the blob has been read, when it was asked to (`release`), or when the unpacker has no need for it. */
export function assistFeed(memory: FeedMemory): void {
  if (!memory.change('alone', 'wanted')) return;
  while (memory.is('wanted')) {
    if (memory.get(RELEASE) !== 0 && memory.change('wanted', 'alone')) {
      memory.set(RELEASE, 0);
      return;
    }
    memory.waitTurn('wanted');
  }
  if (!memory.is('handed')) return;
  const given = memory.read();
  const note = inflate(memory, given);
  memory.write(note);
  // Closed meanwhile: the unpacker waits for no more than to know that nobody has the decoder.
  if (!memory.change('handed', 'returned')) memory.change('closed', 'returned');
  memory.moved(ASSISTANT_MOVED);
}

function inflate(memory: FeedMemory, given: Note): Note {
  try {
    const inflow = new Inflow(memory, given);
    const help = digestHelper(memory);
    let made = 0;
    while (!inflow.ended && !(memory.get(RELEASE) !== 0 && inflow.decoder.state !== undefined)) {
      waitFor(memory, () => made - memory.get(CHUNKS_TAKEN) < CHUNKS, help);
      const slot = made % CHUNKS;
      const length = inflow.fill(inflow.chunks[slot]!, {
        // One more than is under way: the piece that is being inflated is not to be overwritten either.
        before: () => waitFor(memory, () => memory.get(PIECES_READ) - memory.get(PIECES_HASHED) < PIECES - 1),
        read: (index, bytes) => {
          memory.setPieceLength(index, bytes.length);
          memory.set(PIECES_READ, memory.get(PIECES_READ) + 1);
          memory.moved(ASSISTANT_MOVED);
        },
      });
      memory.setChunkLength(slot, length);
      memory.set(CHUNKS_MADE, ++made);
      memory.moved(ASSISTANT_MOVED);
    }
    return inflow.note;
  } catch (error) {
    if (error instanceof CorruptData) return { ...given, corrupt: { message: error.message, kind: error.kind } };
    const { code, message } = Failure.from(error);
    return { ...given, failure: new Failure(code, message.slice(0, 300)).toRecord() };
  }
}

/** @param meanwhile something useful, in small pieces; false: there is nothing to do */
function waitFor(memory: FeedMemory, ready: () => boolean, meanwhile = () => false): void {
  for (;;) {
    const seen = memory.get(UNPACKER_MOVED);
    if (memory.is('closed')) throw new Closed('closed');
    if (ready()) return;
    if (meanwhile()) continue;
    memory.wait(UNPACKER_MOVED, seen);
  }
}
