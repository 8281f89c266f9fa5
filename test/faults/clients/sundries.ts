/** One of everything else that writes something down: updates of records, namespaces, events, the daemon's own id. */
import { rooted, type Turn } from '../turn.ts';
import { write } from './contents.ts';

export async function sundries(turn: Turn): Promise<void> {
  const id = turn.unique('s');
  const size = turn.random.between(16, 2000);
  const digest = await write(turn, `${turn.unique('blob')}~${size}`, size);
  const content = turn.object('content', digest);
  const ref = `${turn.unique('blob')}~${size}`;
  await write(turn, ref, Math.floor(size / 2));
  await turn.ask('content.abort', [{ object: turn.object('ingest', ref), state: null }], () =>
    turn.content.abort({ ref }),
  );
  await turn.ask('content.update', [{ object: content, state: { size } }], () =>
    turn.content.update({ info: { digest, labels: { ...rooted, faults: id } }, updateMask: ['labels'] }),
  );
  const name = `faults.test/${id}:1`;
  const target = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest,
    size: BigInt(size),
    annotations: {},
  };
  const image = turn.object('image', name);
  await turn.ask('images.create', [{ object: image, state: { digest } }], () =>
    turn.images.create({ image: { name, target, labels: {} } }),
  );
  const labels = { faults: id };
  await turn.ask('images.update', [{ object: image, state: { digest, labels } }], () =>
    turn.images.update({ image: { name, target, labels }, updateMask: ['labels'] }),
  );
  const container = { id, image: name, runtime: { name: 'io.containerd.runc.v2', options: undefined }, labels: {} };
  const record = turn.object('container', id);
  await turn.ask('containers.create', [{ object: record, state: { image: name } }], () =>
    turn.containers.create({ container: { ...container, spec: { typeUrl: 'x', value: Buffer.from('{}') } } }),
  );
  await turn.ask('containers.update', [{ object: record, state: { image: name, labels } }], () =>
    turn.containers.update({ container: { ...container, labels }, updateMask: ['labels'] }),
  );
  await turn.call('events.publish', () =>
    turn.events.publish({ topic: '/faults/test', event: { typeUrl: 'faults.Event', value: Buffer.from(id) } }),
  );
  await turn.call('events.forward', () =>
    turn.events.forward({
      envelope: {
        timestamp: { seconds: 1n, nanos: 0 },
        namespace: turn.ground.ns,
        topic: '/faults/forwarded',
        event: { typeUrl: 'faults.Event', value: Buffer.from(id) },
      },
    }),
  );
  await turn.call('introspection.server', () => turn.introspection.server({}));
  await turn.call('namespaces.update', () =>
    turn.namespaces.update({
      namespace: { name: turn.ground.ns, labels: { faults: id } },
      updateMask: ['labels.faults'],
    }),
  );
  if (turn.random.chance(0.3)) return;
  await turn.ask('containers.delete', [{ object: record, state: null }], () => turn.containers.delete({ id }));
  await turn.ask('images.delete', [{ object: image, state: null }], () => turn.images.delete({ name, sync: true }));
  await turn.ask('content.delete', [{ object: content, state: null }], () => turn.content.delete({ digest }));
}
