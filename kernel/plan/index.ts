/** Manifests and the plan made from them. */
export { stateProblem } from './compat.ts';
export { type ConfigKey, type ConfigType, readValue } from './config-key.ts';
export { kernelContract, kernelContracts } from './kernel-contracts.ts';
export {
  isPluginId,
  loadManifest,
  type Manifest,
  type MethodManifest,
  type OnReload,
  type Priority,
  parseManifest,
  pluginApi,
  type ServeManifest,
  splitId,
  type UseManifest,
} from './manifest.ts';
export {
  type Dependency,
  type LeftOut,
  type Plan,
  type PlanOptions,
  plan,
  type Refused,
  type Route,
  type Skipped,
} from './plan.ts';
export { loadManifests } from './folders.ts';
export { withProxies } from './proxies.ts';
export { renderPlan } from './render.ts';
export { planWithout, type Planned } from './without.ts';
export { satisfies } from './version.ts';
