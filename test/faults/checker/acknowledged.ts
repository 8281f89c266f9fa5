/**
 * 1. No acknowledged record is lost: each object is in a state that its client was told of, or may have caused.
 * 2. No phantom: everything listed was asked for by some client.
 */
import { type Breach, Ledger } from './breach.ts';
import type { ImageFixture } from './fixtures.ts';
import type { State } from './oracle.ts';
import type { Picture } from './subject.ts';

type Found = Readonly<Record<string, unknown>>;

export function checkAcknowledged(picture: Picture): Breach[] {
  const lost = new Ledger(1);
  const phantoms = new Ledger(2);
  const found = objects(picture);
  for (const [object, possible] of picture.oracle.possible) {
    const actual = found.get(object);
    if (possible.some((state) => agrees(object, state, actual))) continue;
    const wanted = possible.map((state) => JSON.stringify(brief(state))).join(' or ');
    lost.breach(object, `clients were told ${wanted}, there is ${JSON.stringify(actual ?? null)}`);
  }
  for (const [object, actual] of found) {
    if (picture.empty) phantoms.unsettled(object, 'is left, and everything was removed');
    if (!picture.oracle.possible.has(object) && !isByproduct(object, actual, picture))
      phantoms.breach(object, 'nobody asked for it');
  }
  for (const { call, wants, before } of picture.oracle.doubts) {
    const holds = (state: State, index: number) => agrees(wants[index]!.object, state, found.get(wants[index]!.object));
    const after = wants.every(({ state }, index) => holds(state, index));
    const untouched = before.every((states, index) => states.some((state) => holds(state, index)));
    if (!after && !untouched) lost.breach(wants.map(({ object }) => object).join(' and '), `${call} was half done`);
  }
  for (const { ns, name, digest } of picture.listing.images) checkWhole(picture, ns, name, digest, lost);
  return [...lost.breaches, ...phantoms.breaches];
}

/** Everything listed, named as clients name it in their oracle. */
function objects({ listing }: Picture): Map<string, Found> {
  const found = new Map<string, Found>();
  for (const { ns, name, ...rest } of listing.images) found.set(`image/${ns}/${name}`, rest);
  for (const { ns, id, ...rest } of listing.containers) found.set(`container/${ns}/${id}`, rest);
  for (const { ns, id, ...rest } of listing.leases) found.set(`lease/${ns}/${id}`, rest);
  for (const { ns, snapshotter, key, ...rest } of listing.snapshots)
    found.set(`snapshot/${ns}/${snapshotter}/${key}`, rest);
  for (const { ns, digest, ...rest } of listing.blobs) found.set(`content/${ns}/${digest}`, rest);
  for (const { ns, ref, ...rest } of listing.ingests) found.set(`ingest/${ns}/${ref}`, rest);
  for (const { ns, id, ...rest } of listing.tasks) found.set(`task/${ns}/${id}`, rest);
  return found;
}

/** Of each kind the fields that were promised; the others are notes for other checks. */
const promised: Readonly<Record<string, readonly string[]>> = {
  image: ['digest', 'labels'],
  container: ['image', 'snapshotter', 'snapshotKey', 'labels'],
  lease: ['labels'],
  snapshot: ['kind', 'parent'],
  content: ['size'],
  task: ['pid'],
};

function agrees(object: string, wanted: State, actual: Found | undefined): boolean {
  const kind = object.slice(0, object.indexOf('/'));
  if (wanted === null || actual === undefined) return wanted === null && actual === undefined;
  if (kind === 'ingest')
    return Number(actual.offset) >= Number(wanted.min) && Number(actual.offset) <= Number(wanted.max);
  return (promised[kind] ?? []).every((field) => !(field in wanted) || covers(wanted[field], actual[field]));
}

/** Equal, or for labels: with at least those. */
function covers(wanted: unknown, actual: unknown): boolean {
  if (typeof wanted !== 'object' || wanted === null) return wanted === actual;
  if (typeof actual !== 'object' || actual === null) return false;
  return Object.entries(wanted).every(([key, value]) => (actual as Found)[key] === value);
}

function brief(state: State): unknown {
  if (state === null) return null;
  return Object.fromEntries(Object.entries(state).filter(([key]) => key !== 'files'));
}

/** What `ctr images import` and a diff make on their way without a client's oracle naming it. */
function isByproduct(object: string, actual: Found, { fixtures }: Picture): boolean {
  const [kind, , ...rest] = object.split('/');
  const name = rest.join('/');
  const chainIds = () => fixtures.images.flatMap((image) => image.layers.map((layer) => layer.chainId));
  const digests = () => [...fixtures.images.flatMap((image) => Object.keys(image.blobs)), ...fixtures.loose];
  switch (kind) {
    case 'content':
      // Of a diff only the daemon knows the digest beforehand.
      return digests().includes(name) || 'faults.test/diff' in (actual.labels as Found);
    case 'ingest':
      return (
        digests().some((digest) => name.includes(digest) || name.includes(digest.replace(':', '/'))) ||
        /^(tar|index)-/.test(name)
      );
    case 'snapshot':
      return chainIds().some(
        (chainId) => name.endsWith(`/${chainId}`) || (name.includes('/extract-') && name.endsWith(` ${chainId}`)),
      );
    case 'lease':
      return 'containerd.io/gc.expire' in (actual.labels as Found) && /^\d+-.{4,}$/.test(name);
    default:
      return false;
  }
}

/** An image that is there has all its content, and the snapshots that its client was told it was unpacked to. */
function checkWhole(
  { fixtures, listing, oracle }: Picture,
  ns: string,
  name: string,
  digest: string,
  ledger: Ledger,
): void {
  const image = fixtures.images.find((each: ImageFixture) => each.target === digest);
  if (image === undefined) return;
  const states = oracle.possible.get(`image/${ns}/${name}`) ?? [];
  // A record in doubt may be one whose content an interrupted removal has begun to collect: only sure ones are judged.
  if (states.length !== 1 || states[0] === null) return;
  const where = `image/${ns}/${name}`;
  const blobs = new Map(listing.blobs.filter((blob) => blob.ns === ns).map((blob) => [blob.digest, blob.size]));
  for (const [blob, size] of Object.entries(image.blobs)) {
    if (blobs.get(blob) !== size)
      ledger.breach(where, `its content ${blob} of ${size} bytes is ${blobs.get(blob) ?? 'not there'}`);
  }
  if (states[0]?.unpacked !== true) return;
  const snapshots = new Set(
    listing.snapshots
      .filter((row) => row.ns === ns && row.snapshotter === 'overlayfs' && row.kind === 'committed')
      .map((row) => row.key),
  );
  for (const { chainId } of image.layers) {
    if (!snapshots.has(chainId)) ledger.breach(where, `it was unpacked, and its snapshot ${chainId} is not there`);
  }
}
