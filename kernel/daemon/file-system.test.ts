import test from 'ava';
import { doubtOf } from './file-system.ts';

test('what does not keep data as a disk does is named, with what comes of it', (t) => {
  t.is(
    doubtOf('/data', 0x6969),
    '/data lies on nfs: locks and fsync of it are not those of a local disk, on which records rely',
  );
  t.regex(doubtOf('/data', 0xff534d42)!, /^\/data lies on cifs: /);
  t.regex(doubtOf('/data', 0x01021994)!, /^\/data lies on tmpfs: nothing on it survives a reboot$/);
  t.regex(doubtOf('/data', 0x794c7630)!, /^\/data lies on overlayfs: /);
});

test('disks are not, nor what nothing is known of', (t) => {
  for (const type of [0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1, 0, 0x1234])
    t.is(doubtOf('/data', type), undefined);
  t.is(doubtOf('/proc'), undefined);
  t.is(doubtOf('/no/such/directory'), undefined);
});
