import test from 'ava';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { contentSuite } from '../../test/suites/content.ts';
import { inProcess } from '../../test/suites/in-process.ts';
import { useContent } from './content-fixture.ts';

contentSuite(test, 'in this thread', (t) => {
  const content = useContent(t);
  return { ...content, client: inProcess(ContentDefinition, content.service) };
});
