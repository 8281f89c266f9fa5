import test from 'ava';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { contentSuite } from '../../test/suites/content.ts';
import { useSubject } from '../../test/suites/in-process-subject.ts';
import content from './index.ts';

contentSuite(test, 'in this thread', (t) =>
  useSubject(t, ContentDefinition, content, {
    id: 'io.containerd.content.v1.content',
    noun: 'content',
    config: { content_sharing_policy: 'shared' },
  }),
);
