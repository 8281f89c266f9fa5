/** Plugins in workers, as the links know them: one object for a plugin in a worker, for the life of the worker. */
import type { Links, Party } from './links.ts';
import type { WorkerHandle } from './worker-handle.ts';

export class Parties {
  readonly #links: Links;
  readonly #byHandle = new Map<WorkerHandle, Map<string, Party>>();

  constructor(links: Links) {
    this.#links = links;
  }

  of(id: string, handle: WorkerHandle): Party {
    if (handle.gone) return partyOf(id, handle);
    let parties = this.#byHandle.get(handle);
    if (parties === undefined) {
      parties = new Map();
      this.#byHandle.set(handle, parties);
    }
    let party = parties.get(id);
    if (party === undefined) {
      party = partyOf(id, handle);
      parties.set(id, party);
    }
    return party;
  }

  /** The worker has ended. */
  left(handle: WorkerHandle): void {
    for (const party of this.#byHandle.get(handle)?.values() ?? []) this.#links.left(party);
    this.#byHandle.delete(handle);
  }
}

function partyOf(id: string, handle: WorkerHandle): Party {
  return {
    id,
    get gone() {
      return handle.gone;
    },
    accept: (from, port, page) => handle.send({ t: 'accept', id, from, port, page }, [port]),
    relink: (slot, generation, port, page) => handle.send({ t: 'relink', id, slot, generation, port, page }, [port]),
    died: (slot, generation) => handle.send({ t: 'died', id, slot, generation }),
    down: (slot, reason) => handle.send({ t: 'down', id, slot, reason }),
  };
}
