import test from 'ava';
import { copyLabels, decodeLabels, encodeLabels, mergeLabels, validateLabels } from './label.ts';

test('4096 bytes of key and value are allowed, one more is not', (t) => {
  t.notThrows(() => validateLabels({ k: 'v'.repeat(4095) }));
  t.like(
    t.throws(() => validateLabels({ abcdefghijklm: 'v'.repeat(4090) }, 'namespace.Labels')),
    {
      code: 'InvalidArgument',
      message:
        'namespace.Labels: label key and value greater than maximum size (4096 bytes), key: abcdefghij: invalid argument',
    },
  );
});

test('sizes count bytes, not characters', (t) => {
  t.notThrows(() => validateLabels({ k: 'é'.repeat(2047) }));
  t.throws(() => validateLabels({ k: 'é'.repeat(2048) }));
});

test('equal labels are equal text, whatever their order', (t) => {
  t.is(encodeLabels({ b: '1', a: '2' }), encodeLabels({ a: '2', b: '1' }));
  t.is(encodeLabels({}), '{}');
});

test('any key survives the column', (t) => {
  const labels = JSON.parse('{"__proto__":"x","10":"a","9":"b","constructor":"c","a\\"b":"\\u0000"}');
  const back = decodeLabels(encodeLabels(labels));
  t.deepEqual(Object.keys(back).sort(), Object.keys(labels).sort());
  t.is(Object.getOwnPropertyDescriptor(back, '__proto__')?.value, 'x');
  t.is(Object.getOwnPropertyDescriptor(copyLabels(back), '__proto__')?.value, 'x');
  t.is(back['a"b'], '\0');
});

test('an empty value deletes its label', (t) => {
  const before = { a: '1', b: '2' };
  t.deepEqual(mergeLabels(before, { a: '', c: '3' }), { b: '2', c: '3' });
  t.deepEqual(before, { a: '1', b: '2' });
  t.deepEqual(copyLabels({ a: '', b: '2' }), { b: '2' });
});
