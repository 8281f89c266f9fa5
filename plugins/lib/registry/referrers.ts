/** What a registry has that says of itself that it belongs to a manifest: signatures, lists of contents (OCI distribution spec, "Listing Referrers"). */
import { Failure } from 'troupe/plugin';
import { type Digest, digestAlgorithm, digestHex } from '../digest/digest.ts';
import { type Descriptor, documentLimit, parseDocument } from '../image/document.ts';
import { OCI_INDEX } from '../image/media-type.ts';
import { type HostClient, isSameOrigin } from './host-client.ts';
import { type Answer, discard, readSmall, shown } from './http.ts';
import { type Registry, unexpectedStatus } from './registry.ts';

const mostPages = 32;
const mostReferrers = 10_000;

/**
 * Each once, in the registry's order. A registry without the API is asked for the tag that stands in for it.
 *
 * @throws Failure InvalidArgument for pages that go round, lead to another host, or do not end
 */
export function referrersOf(registry: Registry, digest: Digest, signal: AbortSignal): Promise<Descriptor[]> {
  return registry.each('referrers', signal, async (host) => {
    const found = new Map<string, Descriptor>();
    const seen = new Set<string>();
    let target: string | URL = `referrers/${digest}`;
    for (;;) {
      const answer: Answer = await ask(registry, host, target, signal);
      if (answer.status === 404 && seen.size === 0 && typeof target === 'string' && target.startsWith('referrers/')) {
        discard(answer);
        target = `manifests/${digestAlgorithm(digest)}-${digestHex(digest)}`;
        continue;
      }
      if (answer.status === 404) {
        discard(answer);
        return [...found.values()];
      }
      if (answer.status !== 200) throw unexpectedStatus(answer, 'GET', `referrers of ${digest}`);
      const refuse = (problem: string): Failure =>
        new Failure(
          'InvalidArgument',
          `referrers of ${digest} from ${shown(answer.url)}: ${problem}: invalid argument`,
        );
      seen.add(answer.url.href);
      const document = parseDocument(await readSmall(answer, documentLimit, signal), { digest, mediaType: OCI_INDEX });
      if (document.kind !== 'index') throw refuse('no index');
      for (const each of document.manifests) found.set(each.digest, each);
      if (found.size > mostReferrers) throw refuse(`more than ${mostReferrers}`);
      const next = nextPage(answer);
      if (next === undefined) return [...found.values()];
      if (!isSameOrigin(next, answer.url)) throw refuse(`its next page is on ${next.host}`);
      if (seen.has(next.href) || seen.size >= mostPages) throw refuse(`its pages do not end`);
      target = next;
    }
  });
}

function ask(registry: Registry, host: HostClient, target: string | URL, signal: AbortSignal): Promise<Answer> {
  return registry.exchange(host, {
    method: 'GET',
    target,
    capability: 'referrers',
    headers: { accept: OCI_INDEX },
    signal,
  });
}

/** `Link: </v2/…>; rel="next"` (RFC 8288). */
function nextPage({ headers, url }: Answer): URL | undefined {
  const link = headers.link === undefined ? null : /<([^>]{1,2048})>\s*;[^,]*\brel="?next"?/.exec(String(headers.link));
  if (link === null) return undefined;
  try {
    return new URL(link[1]!, url);
  } catch {
    return undefined;
  }
}
