/**
 * A daemon without privilege unpacks a layer without what it may not do (other owners than itself, devices, some attributes, modes that would shut it out). The client is not bothered:
 * the layer is usable. But it has to be told for as long as the snapshot lives, so it goes to the snapshot's record, as a label, before Apply answers.
 *
 * Apply is given mounts and no snapshot's name. A directory of a snapshot has the snapshot's id in its path; the record with that id is the right one if
 * the snapshotter mounts that directory for it.
 */
import type { Call, Client, Log, Records } from 'troupe/plugin';
import { Kind, type SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { layersOf, type SnapshotMount } from '../lib/layer/mounts.ts';
import { joinOmitted, OMITTED } from '../lib/snapshot/omitted.ts';

interface Found {
  readonly snapshotter: string;
  readonly key: string;
}

export class OmissionRecords {
  readonly #records: Records;
  readonly #snapshots: Client<typeof SnapshotsDefinition>;
  readonly #log: Log;
  #said = false;

  constructor(records: Records, snapshots: Client<typeof SnapshotsDefinition>, log: Log) {
    this.#records = records;
    this.#snapshots = snapshots;
    this.#log = log;
  }

  /** @param omitted kinds, as the extractor tells them: `ownership`, `device`, `xattr`, `mode` */
  async keep(digest: string, mounts: readonly SnapshotMount[], omitted: readonly string[], call: Call): Promise<void> {
    if (omitted.length === 0) return;
    const found = await this.#find(mounts, call);
    if (found !== undefined) await this.#label(found, omitted, call);
    this.#say(digest, omitted, found);
  }

  async #find(mounts: readonly SnapshotMount[], call: Call): Promise<Found | undefined> {
    const upper = layersOf(mounts)?.upper;
    const id = upper === undefined ? undefined : /\/(\d+)(?:\/[^/]+)?$/.exec(upper)?.[1];
    if (id === undefined || !this.#hasSnapshots()) return undefined;
    const found = this.#records.get<{ snapshotter: string; key: string }>(
      `SELECT snapshotter, key FROM snapshots_snapshot WHERE id = ? AND ns = ? AND kind = ${Kind.ACTIVE}`,
      Number(id),
      call.namespace,
    );
    if (found === undefined) return undefined;
    const { mounts: own } = await this.#snapshots.mounts(found, call);
    return layersOf(own)?.upper === upper ? found : undefined;
  }

  /** A config may do without that plugin, whose table this is. */
  #hasSnapshots(): boolean {
    return this.#records.get(`SELECT 1 FROM sqlite_schema WHERE name = 'snapshots_snapshot'`) !== undefined;
  }

  async #label({ snapshotter, key }: Found, omitted: readonly string[], call: Call): Promise<void> {
    const { info } = await this.#snapshots.stat({ snapshotter, key }, call);
    const value = joinOmitted(info?.labels[OMITTED], omitted);
    await this.#snapshots.update(
      {
        snapshotter,
        info: {
          name: key,
          parent: '',
          kind: Kind.UNKNOWN,
          createdAt: undefined,
          updatedAt: undefined,
          labels: { [OMITTED]: value },
        },
        updateMask: [`labels.${OMITTED}`],
      },
      call,
    );
  }

  /** The reason is the same for all layers, so one line of the log is enough. */
  #say(digest: string, omitted: readonly string[], found: Found | undefined): void {
    const kept =
      found === undefined ? 'not kept: the mounts are no snapshot of ours' : `label ${OMITTED} of the snapshot`;
    const fields = { digest, omitted, kept };
    if (this.#said) this.#log.debug('without privilege not everything of a layer was unpacked', fields);
    else
      this.#log.warn('without privilege not everything of a layer can be unpacked; said once, kept for each', fields);
    this.#said = true;
  }
}
