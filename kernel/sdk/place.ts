/** Where in a plugin's files an error comes from: what its author wants to know first, and what its message alone does not tell. */
import { fileURLToPath } from 'node:url';

/** `FILE:LINE` on a line of its own above the error, which is how the runtime tells of code that does not compile or link. */
const heading = /^(file:\/\/\/[^\n]+|\/[^\n]+?):(\d+)\n/;
const frame = /(file:\/\/\/[^\s()]+):(\d+):\d+/g;

/** The message, with the place in front: of code that does not compile where it breaks, of a throw the innermost line that lies in `dir`. */
export function messageWithPlace(error: unknown, dir: string): string {
  if (!(error instanceof Error)) return String(error);
  const { message, stack = '' } = error;
  const place = headingOf(stack) ?? frameOf(stack, dir);
  return place === undefined || message.includes(place) ? message : `${place}: ${message}`;
}

function headingOf(stack: string): string | undefined {
  const found = heading.exec(stack);
  return found === null ? undefined : `${pathOf(found[1]!)}:${found[2]}`;
}

function frameOf(stack: string, dir: string): string | undefined {
  for (const [, url, line] of stack.matchAll(frame)) {
    const path = pathOf(url!);
    if (path.startsWith(`${dir}/`)) return `${path}:${line}`;
  }
  return undefined;
}

function pathOf(text: string): string {
  return text.startsWith('file:') ? fileURLToPath(text) : text;
}
