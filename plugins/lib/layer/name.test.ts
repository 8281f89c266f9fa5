import test from 'ava';
import { cleanComponents, lastComponent } from './name.ts';

/** Every name of up to eight characters that can matter. */
function* names(): Generator<string> {
  let level = [''];
  for (let length = 0; length <= 8; length++) {
    yield* level;
    level = level.flatMap((name) => ['a', '.', '/'].map((character) => name + character));
  }
}

test('what is left of a name without its last component is the name taken apart, where that is clean', (t) => {
  let cut = 0;
  for (const name of names()) {
    const [parent, last] = lastComponent(name);
    if (last === '' || cleanComponents(parent).join('/') !== parent) continue;
    cut++;
    if ([...parent.split('/'), last].join('/') !== cleanComponents(name).join('/')) t.fail(JSON.stringify(name));
  }
  t.true(cut > 100);
});

test('a whiteout, a dot file and a name of one component are to be looked at', (t) => {
  for (const name of ['d/.wh.x', 'd/.wh..wh..opq', 'd/.bashrc', 'd/..', 'd/.', 'd/', 'd', './d', '/d', ''])
    t.is(lastComponent(name)[1], '', name);
  t.deepEqual(lastComponent('usr/share/doc/'), ['usr/share', 'doc']);
  t.deepEqual(lastComponent('./usr/bin/sh'), ['usr/bin', 'sh']);
});
