/**
 * Plugins for `[proxy_plugins.NAME]`: one for each, made from the manifest that says it proxies the type. Its id is the one containerd gives the proxy, and
 * what it serves it serves under its name, beside the built-in provider; clients reach a content store only where the built-in one is disabled.
 */
import type { Config, ProxyPlugin } from '../config/config.ts';
import type { Problem } from '../config/problem.ts';
import { problemAt } from '../config/table.ts';
import type { Manifest, ProxyType, ServeManifest } from './manifest.ts';

const types: Readonly<Record<ProxyType, string>> = {
  snapshot: 'io.containerd.snapshotter.v1',
  content: 'io.containerd.content.v1',
  diff: 'io.containerd.differ.v1',
};

export interface Proxies {
  /** Without the templates. */
  readonly builtin: readonly Manifest[];
  readonly proxies: readonly Manifest[];
  readonly warnings: readonly Problem[];
}

export function withProxies(manifests: readonly Manifest[], config: Config): Proxies {
  const builtin = manifests.filter((manifest) => manifest.proxies === undefined);
  const warnings: Problem[] = [];
  const proxies = Object.entries(config.proxyPlugins).flatMap(([name, proxy]) => {
    const template = manifests.find((manifest) => manifest.proxies === proxy.type);
    if (template !== undefined) return [instance(template, name, proxy, config)];
    const message = `proxy_plugins.${name}: no proxies of type ${proxy.type} here, ignored`;
    warnings.push(problemAt(config.document, ['proxy_plugins', name, 'type'], message));
    return [];
  });
  return { builtin, proxies, warnings };
}

function instance(template: Manifest, name: string, proxy: ProxyPlugin, config: Config): Manifest {
  const { proxies, ...manifest } = template;
  const type = types[proxies!];
  const isAlone = proxies === 'content' && config.disabledPlugins.includes('io.containerd.content.v1.content');
  const served = Object.entries(manifest.serves).map(([contract, serve]): [string, ServeManifest] => [
    contract,
    { ...serve, name, public: serve.public || isAlone },
  ]);
  const address = proxy.address.replace(/^unix:(\/\/)?/, '');
  return {
    ...manifest,
    type,
    name,
    id: `${type}.${name}`,
    group: `${type}.${name}`,
    serves: Object.fromEntries(served),
    config: {
      ...manifest.config,
      address: { ...manifest.config.address!, default: address },
      name: { ...manifest.config.name!, default: name },
    },
    capabilities: proxy.capabilities.length > 0 ? proxy.capabilities : manifest.capabilities,
    platforms: proxy.platform === '' ? manifest.platforms : [proxy.platform],
    exports: { ...manifest.exports, ...proxy.exports, address: proxy.address },
    // Where somebody wrote that there is to be one.
    file: placeOf(config, name) ?? manifest.file,
  };
}

/** Tells them apart for the plan, and is where a clash is to be mended. */
function placeOf(config: Config, name: string): string | undefined {
  const place = config.document.locate(['proxy_plugins', name]);
  if (place === undefined) return undefined;
  return place.line === undefined ? place.file : `${place.file}:${place.line}`;
}
