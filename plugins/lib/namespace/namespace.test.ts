import test from 'ava';
import { requireNamespace, validateNamespace } from './namespace.ts';

test('a namespace is required, and an identifier', (t) => {
  t.is(requireNamespace({ namespace: 'k8s.io' }), 'k8s.io');
  t.like(
    t.throws(() => requireNamespace({ namespace: '' })),
    {
      code: 'FailedPrecondition',
      message: 'namespace is required: failed precondition',
    },
  );
  t.like(
    t.throws(() => requireNamespace({ namespace: 'a..b' })),
    {
      code: 'InvalidArgument',
      message:
        'namespace validation: identifier "a..b" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument',
    },
  );
});

test('"version" is nobody\'s namespace', (t) => {
  t.like(
    t.throws(() => requireNamespace({ namespace: 'version' })),
    { code: 'InvalidArgument' },
  );
  t.like(
    t.throws(() => validateNamespace('version')),
    {
      code: 'InvalidArgument',
      message: 'namespace "version" is reserved: invalid argument',
    },
  );
  t.notThrows(() => validateNamespace('versions'));
});
