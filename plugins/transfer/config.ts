/** The plugin's keys, as plugin.toml declares them. */
export interface Config {
  readonly config_path: string;
  readonly docker_config: string;
  readonly credential_realms: readonly string[];
  readonly max_concurrent_downloads: number;
  readonly max_concurrent_uploaded_layers: number;
  /** Bytes. */
  readonly concurrent_layer_fetch_buffer: number;
  readonly layer_fetch_pieces: number;
  /** Bytes. */
  readonly upload_chunk: number;
  readonly retry_attempts: number;
  /** ms */
  readonly retry_backoff: number;
  /** Bytes a second. */
  readonly min_rate: number;
  /** ms */
  readonly stall_timeout: number;
  readonly bin_dir: string;
  readonly max_verifiers: number;
  /** ms */
  readonly per_verifier_timeout: number;
  readonly default_snapshotter: string;
}
