// Tests are TypeScript as it is; processes instead of worker threads, since many of them need signals, umask and workers of their own.
export default {
  files: [
    'kernel/**/*.test.ts',
    'plugins/**/*.test.ts',
    'proto/**/*.test.ts',
    'test/**/*.test.ts',
    'bench/**/*.test.ts',
  ],
  extensions: ['ts'],
  workerThreads: false,
  timeout: '120s',
};
