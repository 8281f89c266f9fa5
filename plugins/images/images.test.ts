import test from 'ava';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { imagesSuite } from '../../test/suites/images.ts';
import { useSubject } from '../../test/suites/in-process-subject.ts';
import images from './index.ts';

const id = 'io.containerd.service.v1.images-service';

imagesSuite(test, 'in this thread', (t) => useSubject(t, ImagesDefinition, images, { id, noun: 'images' }));

test('deleting with sync collects before it answers', async (t) => {
  const { client, collect, daemon } = await useSubject(t, ImagesDefinition, images, { id, noun: 'images' });
  const target = { digest: `sha256:${'0'.repeat(64)}`, mediaType: 'm', size: 1n, annotations: {} };
  const image = (name: string, labels: { [key: string]: string } = {}) => ({
    image: { name, labels, target, createdAt: undefined, updatedAt: undefined },
    sourceDateEpoch: undefined,
  });
  await client.create(image('a'), { namespace: 'n' });
  await client.create(image('b', { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' }), { namespace: 'n' });
  const names = () => daemon.records.rows<{ name: string }>('images_image').map(({ name }) => name);
  await client.delete({ name: 'a', sync: true, target: undefined }, { namespace: 'n' });
  t.deepEqual(names(), []);
  await collect();
});

test('an image holds its content and what its labels name, by the edges that collection follows', async (t) => {
  const { client, daemon } = await useSubject(t, ImagesDefinition, images, { id, noun: 'images' });
  const digest = `sha256:${'0'.repeat(64)}`;
  await client.create(
    {
      image: {
        name: 'a',
        labels: { 'containerd.io/gc.ref.snapshot.overlayfs': 's' },
        target: { digest, mediaType: 'm', size: 1n, annotations: {} },
        createdAt: undefined,
        updatedAt: undefined,
      },
      sourceDateEpoch: undefined,
    },
    { namespace: 'n' },
  );
  const edges = () =>
    daemon.records
      .rows<{ to_kind: string; to_id: string }>(
        "SELECT to_kind, to_id FROM images_gc_edge UNION ALL SELECT to_kind, to_id FROM records_gc_edge WHERE kind = 'image' ORDER BY 1",
      )
      .map(({ to_kind, to_id }) => `${to_kind} ${to_id}`);
  t.deepEqual(edges(), [`content ${digest}`, 'snapshot/overlayfs s']);
  await client.delete({ name: 'a', sync: false, target: undefined }, { namespace: 'n' });
  t.deepEqual(edges(), []);
});
