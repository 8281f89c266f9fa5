/** The config file: TOML → typed config over the defaults. */
export type {
  Config,
  ConfigFlags,
  FrontConfig,
  GrpcConfig,
  KernelConfig,
  LogLevel,
  ProxyPlugin,
  SocketConfig,
  StreamProcessor,
} from './config.ts';
export { defaultConfigPath, defaultPlaces, type Identity, processIdentity } from './identity.ts';
export { defaultConfig, loadConfig } from './load.ts';
export { type PluginConfig, type PluginConfigs, pluginConfig, pluginConfigs } from './plugins.ts';
export { type Problem, ProblemsError, renderProblem } from './problem.ts';
