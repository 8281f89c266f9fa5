import test from 'ava';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { imagesSuite } from '../../test/suites/images.ts';
import { inProcess } from '../../test/suites/in-process.ts';
import { useSurroundings } from '../../test/suites/in-process-records.ts';
import { imagesService } from './service.ts';
import { Store } from './store.ts';

imagesSuite(test, 'in this thread', (t) => {
  const surroundings = useSurroundings(t, 'images');
  const service = imagesService(new Store(surroundings.records), { collect: () => surroundings.collect() });
  return { ...surroundings, client: inProcess(ImagesDefinition, service) };
});
