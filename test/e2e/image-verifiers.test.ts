/** Programs that decide about pulls, by the protocol of containerd's bindir verifiers: what they are told, and what their answers do. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GrpcClient } from '../../kernel/front/client.ts';
import { eventually } from '../helpers/eventually.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { imageLayout, writeOciArchive } from '../helpers/image.ts';
import { needing } from '../helpers/privilege.ts';
import { Registry } from '../helpers/registry.ts';
import { useScratch } from '../helpers/scratch.ts';
import { registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const registryTest = needing('root', 'mount', 'program docker-registry');

const image = imageLayout();

/** Not so for one that has ended and that nobody has asked about yet. */
function runs(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

registryTest(
  'image verifiers are told name, digest and descriptor; one that refuses, fails or hangs keeps the image out',
  async (t) => {
    const dir = useScratch(t, 'verifiers');
    const bin = join(dir, 'bin');
    const heard = join(dir, 'heard');
    const left = join(dir, 'left');
    mkdirSync(bin);
    const program = (name: string, ...lines: string[]): void => {
      writeFileSync(join(bin, name), `#!/bin/sh\n${lines.join('\n')}\n`);
      chmodSync(join(bin, name), 0o755);
    };
    program('10-hears', `printf '%s\\n' "$*" > ${heard}; cat >> ${heard}; echo fine`);
    program(
      '20-judges',
      'case $2 in */refused:*) echo "nobody signed it"; exit 3;; */hangs:*) sleep 3600 & echo $! > ' +
        left +
        '; wait;; esac',
    );
    program('30-too-many', `exit 1`);

    const registry = await new Registry(join(dir, 'registry')).start();
    t.teardown(() => registry.stop());
    const daemon = await useDaemon(t, {
      config: `version = 3
[plugins."io.containerd.transfer.v1.local"]
docker_config = "none"
[plugins."io.containerd.image-verifier.v1.bindir"]
bin_dir = ${JSON.stringify(bin)}
max_verifiers = 2
per_verifier_timeout = "1s"
`,
    });
    const client = new GrpcClient(daemon.address, { namespace: 'default' });
    t.teardown(() => client.close());
    const archive = join(dir, 'image.tar');
    writeOciArchive(archive, image, 'example.test/image:1');
    t.is((await daemon.ctr(['images', 'import', '--no-unpack', archive], { namespace: 'seed' })).code, 0);
    for (const name of ['good', 'refused', 'hangs']) {
      const { code, stderr } = await daemon.ctr(
        ['images', 'push', '--plain-http', `${registry.host}/${name}:1`, 'example.test/image:1'],
        { namespace: 'seed' },
      );
      t.is(code, 0, stderr);
    }
    const pull = (name: string) => {
      const reference = `${registry.host}/${name}:1`;
      return transfer(client, registryEnd(reference), storeEnd({ name: reference }), { namespace: 'default' });
    };

    await pull('good');
    const [args, descriptor] = readFileSync(heard, 'utf8').split('\n') as [string, string];
    const { digest, size, mediaType } = JSON.parse(descriptor) as { digest: string; size: number; mediaType: string };
    t.is(
      args,
      `-name ${registry.host}/good:1 -digest ${digest} -stdin-media-type application/vnd.oci.descriptor.v1+json`,
    );
    t.is((await daemon.ctr(['images', 'ls', '-q'])).stdout.trim(), `${registry.host}/good:1`);
    t.true((await daemon.ctr(['images', 'ls'])).stdout.includes(`${mediaType} ${digest}`));
    t.is(Buffer.byteLength((await daemon.ctr(['content', 'get', digest])).stdout), size);

    await t.throwsAsync(pull('refused'), {
      message: new RegExp(
        `^image verifier bindir blocked pull of \\S+/refused:1 with digest ${digest} for reason: verifier 20-judges rejected image \\(exit code 3\\): nobody signed it: failed precondition$`,
      ),
    });
    await t.throwsAsync(pull('hangs'), {
      message: /image verifier \S*20-judges: no answer within 1000 ms: unavailable$/,
    });
    const orphan = Number(readFileSync(left, 'utf8'));
    await eventually(t, 'what it had started is ended with it', () => !runs(orphan));
    chmodSync(join(bin, '10-hears'), 0o644);
    await t.throwsAsync(pull('good'), { message: /image verifier \S*10-hears: .*EACCES.*: unavailable$/ });
    t.is((await daemon.ctr(['images', 'ls', '-q'])).stdout.trim(), `${registry.host}/good:1`, 'only what was allowed');
  },
);
