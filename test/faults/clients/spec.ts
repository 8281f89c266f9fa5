/** The OCI runtime spec of a container of the mix: busybox, its own namespaces, the host's network. */
export const specUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
export const processUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Process';

const process = (args: readonly string[]) => ({
  user: { uid: 0, gid: 0 },
  args,
  env: ['PATH=/bin'],
  cwd: '/',
  noNewPrivileges: true,
});

export function specOf(ns: string, id: string, args: readonly string[]): Uint8Array {
  const spec = {
    ociVersion: '1.0.2',
    process: process(args),
    root: { path: 'rootfs' },
    mounts: [{ destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] }],
    linux: {
      cgroupsPath: `/${ns}/${id}`,
      namespaces: [{ type: 'pid' }, { type: 'ipc' }, { type: 'uts' }, { type: 'mount' }],
    },
  };
  return Buffer.from(JSON.stringify(spec));
}

export function processOf(args: readonly string[]): Uint8Array {
  return Buffer.from(JSON.stringify(process(args)));
}
