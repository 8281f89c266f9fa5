/**
 * Keys that containerd's own plugins have in its config. One that a plugin of ours under the same URI does not have is a warning and no error: the file
 * was written for containerd, by a person who made no mistake.
 */
const keys: Readonly<Record<string, readonly string[]>> = {
  'io.containerd.cri.v1.images': [],
  'io.containerd.cri.v1.runtime': [],
  'io.containerd.differ.v1.erofs': ['mkfs_options', 'enable_tar_index'],
  'io.containerd.gc.v1.scheduler': [
    'deletion_threshold',
    'mutation_threshold',
    'pause_threshold',
    'schedule_delay',
    'startup_delay',
  ],
  'io.containerd.grpc.v1.cri': [],
  'io.containerd.image-verifier.v1.bindir': ['bin_dir', 'max_verifiers', 'per_verifier_timeout'],
  'io.containerd.internal.v1.opt': ['path'],
  'io.containerd.internal.v1.tracing': ['service_name', 'sampling_ratio'],
  'io.containerd.metadata.v1.bolt': ['content_sharing_policy', 'no_sync'],
  'io.containerd.monitor.container.v1.restart': ['interval'],
  'io.containerd.monitor.task.v1.cgroups': ['no_prometheus'],
  'io.containerd.runtime.v1.linux': ['no_shim', 'runtime', 'runtime_root', 'shim', 'shim_debug'],
  'io.containerd.runtime.v2.task': ['platforms', 'sched_core'],
  'io.containerd.service.v1.diff-service': ['default', 'sync_fs'],
  'io.containerd.service.v1.tasks-service': ['blockio_config_file', 'rdt_config_file'],
  'io.containerd.shim.v1.manager': ['env', 'socket_dir'],
  'io.containerd.snapshotter.v1.aufs': ['root_path'],
  'io.containerd.snapshotter.v1.blockfile': [
    'root_path',
    'scratch_file',
    'fs_type',
    'mount_options',
    'recreate_scratch',
  ],
  'io.containerd.snapshotter.v1.btrfs': ['root_path'],
  'io.containerd.snapshotter.v1.devmapper': [
    'async_remove',
    'base_image_size',
    'discard_blocks',
    'fs_options',
    'fs_type',
    'pool_name',
    'root_path',
  ],
  'io.containerd.snapshotter.v1.native': ['root_path'],
  'io.containerd.snapshotter.v1.overlayfs': [
    'root_path',
    'upperdir_label',
    'sync_remove',
    'slow_chown',
    'mount_options',
  ],
  'io.containerd.snapshotter.v1.zfs': ['root_path'],
  'io.containerd.tracing.processor.v1.otlp': ['endpoint', 'protocol', 'insecure'],
  'io.containerd.transfer.v1.local': [
    'max_concurrent_downloads',
    'max_concurrent_uploaded_layers',
    'max_concurrent_unpacks',
    'concurrent_layer_fetch_buffer',
    'check_platform_supported',
    'unpack_config',
    'config_path',
  ],
};

/** Empty for URIs that containerd does not have, and for those whose keys nobody lists. */
export function containerdKeys(uri: string): readonly string[] {
  return Object.hasOwn(keys, uri) ? keys[uri]! : [];
}

export function isContainerdPlugin(uri: string): boolean {
  return Object.hasOwn(keys, uri);
}
