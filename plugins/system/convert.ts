/** Plugins as the kernel tells of them → as Introspection lists them. */
import { Plugin } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import type { Plugin as KernelPlugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { failureCodes } from 'troupe/plugin';

/** `os/arch[/variant]` of this machine, in the words of the OCI image spec (Go's GOARCH). */
export function localPlatform(arch: string = process.arch): { os: string; architecture: string; variant: string } {
  const names: Readonly<Record<string, [string, string?]>> = { x64: ['amd64'], arm64: ['arm64', 'v8'], ia32: ['386'] };
  const [architecture, variant = ''] = names[arch] ?? [arch];
  return { os: process.platform, architecture, variant };
}

/**
 * One entry for the id and one for each alias: clients look for containerd's URIs, and find what stands behind them.
 * @param exportsOf what a URI exports beyond its manifest's
 */
export function toPlugins(
  plugin: KernelPlugin,
  exportsOf: (uri: string) => { readonly [key: string]: string },
): Plugin[] {
  const platforms = plugin.platforms.length === 0 ? [] : plugin.platforms.flatMap(matching);
  const status = initError(plugin);
  return [plugin.id, ...plugin.aliases].map((uri) => {
    const dot = uri.lastIndexOf('.');
    return Plugin.fromPartial({
      type: uri.slice(0, dot),
      id: uri.slice(dot + 1),
      requires: [...new Set(plugin.requires.map((each) => each.slice(0, each.lastIndexOf('.'))))],
      platforms,
      exports: { ...plugin.exports, ...exportsOf(uri) },
      capabilities: plugin.capabilities,
      ...(status !== undefined && { initErr: status }),
    });
  });
}

/** Listed by a manifest, and this machine's. */
function matching(platform: string): { os: string; architecture: string; variant: string }[] {
  const local = localPlatform();
  const [os, architecture] = platform.split('/');
  return os === local.os && architecture === local.architecture ? [local] : [];
}

/** Nothing for a plugin that works or is about to. Clients take every text without "skip plugin" for a fault. */
function initError({ state, reason }: KernelPlugin): { code: number; message: string } | undefined {
  switch (state) {
    case 'skipped':
      return { code: failureCodes.Unknown, message: `${reason}: skip plugin` };
    case 'failed':
      return { code: failureCodes.Unknown, message: reason || 'failed' };
    case 'stopped':
      return { code: failureCodes.Unavailable, message: reason || 'stopped by request' };
    default:
      return undefined;
  }
}
