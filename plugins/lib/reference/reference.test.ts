import test from 'ava';
import { Failure } from 'troupe/plugin';
import { formatReference, parseReference } from './reference.ts';

const digest = `sha256:${'0'.repeat(64)}`;

const accepted = {
  'example.com/app': { hostname: 'example.com', repository: 'app', tag: undefined, digest: undefined },
  'example.com/team/app:1.2': { hostname: 'example.com', repository: 'team/app', tag: '1.2', digest: undefined },
  'localhost:5000/a__b/c-d.e:latest': {
    hostname: 'localhost:5000',
    repository: 'a__b/c-d.e',
    tag: 'latest',
    digest: undefined,
  },
  [`[::1]:5000/app@${digest}`]: { hostname: '[::1]:5000', repository: 'app', tag: undefined, digest },
  [`example.com/app:v1@${digest}`]: { hostname: 'example.com', repository: 'app', tag: 'v1', digest },
};
for (const [text, expected] of Object.entries(accepted)) {
  test(`parsed and printed again: ${text}`, (t) => {
    const reference = parseReference(text);
    t.like(reference, expected);
    t.is(reference.locator, `${expected.hostname}/${expected.repository}`);
    t.is(formatReference(reference), text);
  });
}

for (const text of [
  '',
  'app',
  '/app',
  'example.com/',
  'example.com//app',
  'example.com/App',
  'example.com/app:',
  'example.com/app:-x',
  'example.com/app@',
  'example.com/app@sha256:abc',
  'example.com/../app',
  'example.com/a b',
  'exa mple.com/app',
  'http://example.com/app',
  '-x.com/app',
  `example.com/${'a'.repeat(250)}`,
  `example.com/app:${'t'.repeat(129)}`,
  'example.com/app\n',
  'localhost:99999/a',
  'localhost:65536/a',
  'localhost:0/a',
  'localhost:/a',
  'localhost:x/a',
  `example.com/app@${digest}:tag`,
  `example.com/app:1@${digest}@${digest}`,
  `example.com/app@${digest.toUpperCase()}`,
  'example.com/app:t:t',
  'exämple.com/app',
  'example.com/äpp',
  'example.com/app\u202e',
  'example.com/app\0',
  `example.com/${'a/'.repeat(2500)}a`,
]) {
  test(`refused: ${JSON.stringify(text).slice(0, 100)}`, (t) => {
    const failure = t.throws(() => parseReference(text), { instanceOf: Failure });
    t.is(failure.code, 'InvalidArgument');
    t.regex(failure.message, /^reference "[^\0\n]*": .*: invalid argument$/);
    t.true(failure.message.length < 500);
  });
}
