/** Lists of referrers, and lists that are meant to hold whoever reads them. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { digestOf } from '../digest/digest.ts';
import { OCI_MANIFEST } from '../image/media-type.ts';
import { parseReference } from '../reference/reference.ts';
import { hostsOf } from './hosts.ts';
import { referrersOf } from './referrers.ts';
import { Registry } from './registry.ts';
import { Transports } from './transports.ts';

const digest = digestOf('image');
const { signal } = new AbortController();
type Page = { status?: number; link?: string; names: string[] };

/** Pages by path; undefined: 404. */
async function list(t: ExecutionContext, page: (path: string) => Page | undefined): Promise<string[]> {
  const server = createServer((request, response) => {
    const found = page(request.url!);
    if (found === undefined) return void response.writeHead(404).end();
    const manifests = found.names.map((name) => ({ mediaType: OCI_MANIFEST, digest: digestOf(name), size: 3 }));
    response.writeHead(found.status ?? 200, found.link === undefined ? {} : { link: found.link });
    response.end(JSON.stringify({ schemaVersion: 2, manifests }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const transports = new Transports();
  t.teardown(() => {
    transports.close();
    server.close();
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const registry = new Registry({
    reference: parseReference(`${host}/team/app:1`),
    hosts: hostsOf(host, { directories: [], defaultScheme: 'http' }),
    transports,
    credentials: async () => undefined,
    backoff: { firstMs: 1, attempts: 2 },
  });
  return (await referrersOf(registry, digest, signal)).map((each) => each.digest);
}

const api = `/v2/team/app/referrers/${digest}`;

test('pages, the tag in their place, and none', async (t) => {
  const pages: Record<string, Page> = {
    [api]: { names: ['a', 'b'], link: `<${api}?n=2>; rel="next"` },
    [`${api}?n=2`]: { names: ['b', 'c'] },
  };
  t.deepEqual(
    await list(t, (path) => pages[path]),
    ['a', 'b', 'c'].map((name) => String(digestOf(name))),
  );
  const tag = `/v2/team/app/manifests/${digest.replace(':', '-')}`;
  t.deepEqual(await list(t, (path) => (path === tag ? { names: ['a'] } : undefined)), [String(digestOf('a'))]);
  t.deepEqual(await list(t, () => undefined), []);
});

test('129: pages that go round, on, or elsewhere, and lists without end', async (t) => {
  let n = 0;
  await t.throwsAsync(
    list(t, () => ({ names: [], link: `<${api}>; rel=next` })),
    { message: /its pages do not end/ },
  );
  await t.throwsAsync(
    list(t, () => ({ names: [], link: `<${api}?n=${++n}>; rel="next"` })),
    { message: /its pages do not end/ },
  );
  await t.throwsAsync(
    list(t, () => ({ names: [], link: '<http://169.254.169.254/x>; rel="next"' })),
    { message: /next page is on 169/ },
  );
  const many = Array.from({ length: 4000 }, (_, i) => i);
  await t.throwsAsync(
    list(t, () => ({ names: many.map((i) => `${n}-${i}`), link: `<${api}?n=${++n}>; rel="next"` })),
    { message: /more than 10000/ },
  );
});
