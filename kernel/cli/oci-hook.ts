/** `oci-hook`: lets a hook of a container's spec know which container it runs for, by templates in its command line. */
import { spawn } from 'node:child_process';
import { isAbsolute, join } from 'node:path';
import { constants } from 'node:os';
import { readFileBounded, readStdin } from './input.ts';

interface Container {
  readonly id: string;
  readonly pid: number;
  readonly status: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Runs the command with what stdin says filled in, and resolves with its exit code (128 + signal when one ended it, as shells have it). */
export async function ociHook(args: readonly string[]): Promise<number> {
  const container = readContainer(await readStdin(1 << 20), (path) => readFileBounded(path, 16 << 20));
  const [file, ...rest] = args.map((argument) => fillIn(argument, container));
  const env = Object.fromEntries(
    Object.entries(process.env).map(([name, value]) => [name, fillInLeniently(value ?? '', container)]),
  );
  return new Promise((resolve, reject) => {
    const child = spawn(file!, rest, { stdio: 'inherit', env });
    child.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`oci-hook: ${file}: ${error.code ?? error.message}`)),
    );
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}

/**
 * @param state JSON of the OCI state: `{ id, pid, status, bundle, annotations? }`
 * @param read contents of a file; asked for `<bundle>/config.json`
 */
export function readContainer(state: Uint8Array, read: (path: string) => Uint8Array): Container {
  const { id, pid, status, bundle, annotations } = parseObject(state, 'the state on stdin');
  if (typeof id !== 'string' || typeof bundle !== 'string' || bundle === '')
    throw new Error('oci-hook: the state on stdin has no id or no bundle');
  const file = join(bundle, 'config.json');
  const spec = parseObject(read(file), file);
  const root = (spec.root as { path?: unknown } | undefined)?.path;
  const path = typeof root === 'string' ? root : '';
  return {
    id,
    pid: typeof pid === 'number' ? pid : 0,
    status: typeof status === 'string' ? status : '',
    bundle,
    rootfs: isAbsolute(path) ? path : join(bundle, path),
    // The state's are the spec's own, when the runtime passes them on at all.
    annotations: { ...(spec.annotations as Record<string, string>), ...(annotations as Record<string, string>) },
  };
}

function parseObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch {
    // told below
  }
  throw new Error(`oci-hook: ${what} is not a JSON object`);
}

/** The part of Go's text/template that hooks use: one word, or `annotation` with a quoted key; `{{-` and `-}}` trim. */
const action = /(\s*\{\{- |\{\{)\s*([\s\S]*?)\s*( -\}\}\s*|\}\})/g;
const field = /^\.?(\w+)$/;
const annotation = /^\.?annotation\s+(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`)$/;

export function fillIn(template: string, container: Container): string {
  const filled = template.replace(action, (_, _open: string, body: string) => {
    const key = annotation.exec(body);
    if (key !== null)
      return annotationOf(
        container.annotations,
        key[1] === undefined ? key[2]! : (JSON.parse(`"${key[1]}"`) as string),
      );
    const name = field.exec(body)?.[1]?.toLowerCase() ?? '';
    if (['id', 'bundle', 'rootfs', 'pid', 'status'].includes(name)) return String(container[name as 'id']);
    throw new Error(
      `oci-hook: {{${body}}} is none of {{id}}, {{pid}}, {{status}}, {{bundle}}, {{rootfs}}, {{annotation "KEY"}}`,
    );
  });
  // Looked for in the template and not in the result: an annotation may well contain braces.
  if (template.replace(action, '').includes('{{'))
    throw new Error(`oci-hook: "${template}" opens {{ and does not close it`);
  return filled;
}

/** The environment is whatever the runtime had; a variable that merely looks like a template is left alone rather than failing the container. */
function fillInLeniently(value: string, container: Container): string {
  try {
    return value.includes('{{') ? fillIn(value, container) : value;
  } catch {
    return value;
  }
}

function annotationOf(annotations: Readonly<Record<string, string>>, key: string): string {
  return Object.hasOwn(annotations, key) ? String(annotations[key]) : '';
}
