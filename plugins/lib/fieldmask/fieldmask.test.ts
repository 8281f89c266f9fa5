import test from 'ava';
import { parseFieldMask } from './fieldmask.ts';

const shape = { what: 'image "a"', fields: ['labels', 'target'], maps: ['labels'] };

test('only the first dot separates a map from its key', (t) => {
  t.deepEqual(parseFieldMask(['labels.containerd.io/gc.root', 'target', 'labels'], shape), [
    { field: 'labels', key: 'containerd.io/gc.root' },
    { field: 'target', key: undefined },
    { field: 'labels', key: undefined },
  ]);
  t.deepEqual(parseFieldMask(undefined, shape), []);
});

for (const path of ['*', '', 'name', 'labels.', '.labels', 'target.digest', 'labelsx'])
  test(`mask path ${JSON.stringify(path)} is refused`, (t) => {
    t.like(
      t.throws(() => parseFieldMask([path], shape)),
      {
        code: 'InvalidArgument',
        message: `cannot update "${path}" field of image "a": invalid argument`,
      },
    );
  });

test('a map of which only entries may change', (t) => {
  const entries = { what: 'namespace', fields: [], maps: ['labels'] };
  t.deepEqual(parseFieldMask(['labels.a.b'], entries), [{ field: 'labels', key: 'a.b' }]);
  t.throws(() => parseFieldMask(['labels'], entries));
});
