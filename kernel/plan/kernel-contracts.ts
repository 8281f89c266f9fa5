/** What the kernel serves itself: there for every plugin to use, and in nobody's manifest. */
export const kernelContract = 'troupe.kernel.v1.Kernel';

/** Contract → version. */
export const kernelContracts: Readonly<Record<string, string>> = { [kernelContract]: '1.0.0' };
