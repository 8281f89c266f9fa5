/**
 * Identifiers: names of namespaces, containers, tasks, execs, sandboxes and the components of event topics. They become
 * directory names, so nothing but letters, digits and single separators inside gets through.
 *
 * Image names, lease ids, snapshot keys and content refs are free text and not identifiers.
 */
import { Failure } from 'troupe/plugin';
import { quote } from './quote.ts';

/** Bytes. */
export const maxIdentifierLength = 76;

const pattern = /^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$/;

/** @throws Failure InvalidArgument with containerd's text: empty, longer than 76 bytes, or of other characters. */
export function validateIdentifier(text: string): void {
  const problem = identifierProblem(text);
  if (problem !== undefined) throw new Failure('InvalidArgument', `${problem}: invalid argument`);
}

/** What is wrong with it, without the class's suffix; undefined when it is an identifier. */
export function identifierProblem(text: string): string | undefined {
  if (text.length === 0) return 'identifier must not be empty';
  // Length first: the pattern is linear, but a refusal should not repeat a megabyte of it either.
  if (Buffer.byteLength(text) > maxIdentifierLength)
    return `identifier ${quote(text.length > 256 ? `${text.slice(0, 256)}…` : text)} greater than maximum length (${maxIdentifierLength} characters)`;
  // JavaScript's $ without the m flag matches only at the end, so a trailing newline is refused.
  if (!pattern.test(text)) return `identifier ${quote(text)} must match ${pattern.source}`;
  return undefined;
}
