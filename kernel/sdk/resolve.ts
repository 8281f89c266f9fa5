/**
 * `import … from 'troupe/plugin'` for plugins anywhere on disk. In the checkout the package refers to itself; a folder elsewhere has no
 * node_modules to look in, so the worker answers for the name.
 */
import { registerHooks } from 'node:module';

const checkout = new URL('../../', import.meta.url);

const entries: { readonly [name: string]: string } = {
  'troupe/plugin': 'kernel/sdk/index.ts',
  'troupe/prebuilt': 'kernel/prebuilt/find.ts',
  'troupe/sys': 'kernel/sys/index.ts',
  'troupe/ttrpc': 'kernel/ttrpc/index.ts',
  'troupe/grpc-client': 'kernel/front/client.ts',
  'troupe/toml': 'kernel/config/toml.ts',
  'troupe/testing': 'kernel/sdk/testing.ts',
};

/** URL of what a specifier of ours names; undefined for everybody else's. */
export function resolveTroupe(specifier: string): string | undefined {
  const entry = entries[specifier];
  if (entry !== undefined) return new URL(entry, checkout).href;
  if (specifier.startsWith('troupe/proto/'))
    return new URL(`proto/gen/${specifier.slice('troupe/proto/'.length)}`, checkout).href;
  return undefined;
}

/**
 * Answers for our names, and for our own relative imports: they name files as they are, with their ending, so that looking for package scopes and
 * links (a tenth of a worker's start, measured) finds nothing that was not said.
 */
export function answerForTroupe(): void {
  const ours = checkout.href;
  registerHooks({
    resolve(specifier, context, next) {
      const named = resolveTroupe(specifier);
      if (named !== undefined) return { url: named, format: 'module-typescript', shortCircuit: true };
      if (specifier.startsWith('.') && specifier.endsWith('.ts') && context.parentURL?.startsWith(ours)) {
        return { url: new URL(specifier, context.parentURL).href, format: 'module-typescript', shortCircuit: true };
      }
      return next(specifier, context);
    },
  });
}
