/** Images: names of content. Wiring only. */
import { definePlugin } from 'troupe/plugin';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { imagesService } from './service.ts';
import { Store } from './store.ts';

export default definePlugin({
  start(ctx) {
    const records = ctx.call(RecordsDefinition);
    const service = imagesService(new Store(ctx.records), { collect: (call) => records.collect({}, call) });
    return { serve: { [ImagesDefinition.fullName]: service } };
  },
});
