/**
 * Image references as the containerd API uses them: a name that may be anything, of which some have the form
 *
 *     example.com:5000/team/app:1.2@sha256:…
 *     └─────────locator───────┘ └───object──┘
 *     └─hostname─────┘          tag  digest
 *
 * The locator names a repository, starting with the host that serves it; the object what in it is meant. Names without a
 * host are valid names of images, but nothing that can be fetched; short names of other tools are not completed here.
 */
import { Failure } from 'troupe/plugin';
import { type Digest, isDigest } from '../digest/digest.ts';
import { quote } from '../identifier/quote.ts';

export interface Reference {
  /** `example.com:5000/team/app` */
  readonly locator: string;
  /** `example.com:5000` */
  readonly hostname: string;
  /** `team/app` */
  readonly repository: string;
  /** `1.2`; undefined when there is none. */
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const host = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$/;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagged = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
/** Bytes; the distribution spec's limit for host and repository together. */
const maxLocatorLength = 255;

/** @throws Failure InvalidArgument naming the reference and the part that is wrong. */
export function parseReference(text: string): Reference {
  const slash = text.indexOf('/');
  if (slash <= 0) throw invalid(text, 'needs a host');
  const hostname = text.slice(0, slash);
  if (!host.test(hostname)) throw invalid(text, 'its host is malformed');
  const port = Number(/:([0-9]+)$/.exec(hostname)?.[1] ?? 1);
  if (port < 1 || port > 65_535) throw invalid(text, 'its port is not one from 1 to 65535');

  let rest = text.slice(slash + 1);
  let digest: Digest | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    const candidate = rest.slice(at + 1);
    if (!isDigest(candidate)) throw invalid(text, 'its digest is malformed');
    digest = candidate;
    rest = rest.slice(0, at);
  }

  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon >= 0) {
    tag = rest.slice(colon + 1);
    if (!tagged.test(tag)) throw invalid(text, 'its tag is malformed');
    rest = rest.slice(0, colon);
  }

  if (!rest.split('/').every((part) => component.test(part))) throw invalid(text, 'its repository is malformed');
  const locator = `${hostname}/${rest}`;
  if (locator.length > maxLocatorLength)
    throw invalid(text, `its locator is longer than ${maxLocatorLength} characters`);
  return { locator, hostname, repository: rest, tag, digest };
}

/** The text of a reference; parses to an equal one. */
export function formatReference(reference: Pick<Reference, 'locator' | 'tag' | 'digest'>): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  return `${reference.locator}${tag}${reference.digest === undefined ? '' : `@${reference.digest}`}`;
}

function invalid(text: string, problem: string): Failure {
  const shown = text.length > 300 ? `${text.slice(0, 300)}…` : text;
  return new Failure('InvalidArgument', `reference ${quote(shown)}: ${problem}: invalid argument`);
}
